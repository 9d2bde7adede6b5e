import { createHash } from 'node:crypto'
import { sql, type RawBuilder } from 'kysely'

/** The newest way of writing rows down. An older block keeps the format it was sealed in. */
export const SEAL_FORMAT = 1

/**
 * The columns of each format, in their order. A format never changes: a new column of `transfer` is a new format, and
 * what was sealed before stays as it was.
 */
const COLUMNS: Readonly<Record<number, readonly string[]>> = Object.freeze({
  1: [
    'xid',
    'seq',
    'id',
    'recorded_at',
    'project_id',
    'code',
    'debit_account',
    'credit_account',
    'currency',
    'amount',
    'released',
    'pending_id',
    'envelope_id',
    'run_id',
    'call_id',
    'attempt',
    'certainty',
    'use',
    'reference',
    'lot_id',
    'quote_id',
    'reverses',
    'debit_version',
    'debit_balance',
    'debit_held',
    'credit_version',
    'credit_balance',
    'credit_held',
  ],
})

/** Moments are written in microseconds since 1970, so that no setting of a session changes the text. */
const MOMENTS: ReadonlySet<string> = new Set(['recorded_at'])

export function microsOf(moment: RawBuilder<unknown>): RawBuilder<string> {
  return sql<string>`(extract(epoch from ${moment}) * 1000000)::bigint`
}

/**
 * SHA-256 over the rows of `t` in (xid, seq) order, one line each, as Postgres writes a record: `(a,b,"with a comma",,)`.
 * Undefined for a format that this version does not know.
 */
export function digestOf(format: number): RawBuilder<Buffer> | undefined {
  const columns = COLUMNS[format]
  if (!columns) return undefined
  const fields = columns.map((column) => {
    const field = sql.ref(`t.${column}`)
    return MOMENTS.has(column) ? microsOf(field) : field
  })
  return sql<Buffer>`sha256(convert_to(string_agg(row(${sql.join(fields)})::text, e'\n' order by t.xid, t.seq), 'UTF8'))`
}

/** Everything of a block but its hash. Numbers as text: they are hashed as they stand. */
export interface BlockHeader {
  readonly height: bigint
  readonly format: number
  readonly firstXid: string
  readonly firstSeq: string
  readonly lastXid: string
  readonly lastSeq: string
  readonly count: number
  readonly digest: Buffer
  readonly previous: Buffer
  /** Microseconds since 1970. */
  readonly sealedAtMicros: string
}

export const FIRST_PREVIOUS = Buffer.alloc(32)

/** What a head stands for: its rows, its bounds, and all blocks before it. */
export function hashOf(block: BlockHeader): Buffer {
  const lines = [
    'purser seal',
    block.format,
    block.height,
    block.previous.toString('hex'),
    block.digest.toString('hex'),
    `${block.firstXid}:${block.firstSeq}`,
    `${block.lastXid}:${block.lastSeq}`,
    block.count,
    block.sealedAtMicros,
  ]
  return createHash('sha256').update(lines.join('\n')).digest()
}
