import { createHash } from 'node:crypto'
import { sql, type RawBuilder } from 'kysely'

/** The newest way of writing rows down. An older block keeps the format it was sealed in. */
export const SEAL_FORMAT = 2

const MOVEMENT = [
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
] as const

/**
 * The columns of each format, in their order. A format never changes: a new column of `transfer` is a new format, and
 * what was sealed before stays as it was.
 */
const COLUMNS: Readonly<Record<number, readonly string[]>> = Object.freeze({ 1: MOVEMENT, 2: MOVEMENT })

const FIRST_TERMS = {
  account: ['id', 'project_id', 'kind', 'wallet_id', 'envelope_id', 'balance_class', 'currency', 'cap', 'created_at'],
  catalog: ['version', 'digest', 'document', 'created_at'],
  envelope: ['id', 'project_id', 'wallet_id', 'run_id', 'parent_id', 'api_key_id', 'kind', 'subjects', 'created_at'],
  limit_change: ['id', 'organisation_id', 'limit_id', 'change', 'cap', 'api_key_id', 'recorded_at'],
  lot: ['id', 'project_id', 'account_id', 'source', 'priority', 'expires_at', 'opening', 'created_at'],
  price: [
    'id',
    'provider',
    'upstream_model',
    'currency',
    'input_nano_per_million',
    'cached_input_nano_per_million',
    'output_nano_per_million',
    'per_call_nano',
    'effective_at',
  ],
  quote: [
    'id',
    'organisation_id',
    'sell_currency',
    'buy_currency',
    'sell',
    'buy',
    'source',
    'effective_at',
    'expires_at',
  ],
  usage_limit: [
    'id',
    'organisation_id',
    'project_id',
    'scope',
    'subject_id',
    'step',
    'measure',
    'currency',
    'period',
    'time_zone',
    'set_by',
    'created_at',
  ],
  wallet: ['id', 'project_id', 'created_at'],
} as const

/**
 * What the journal rests on, by table: what of it never changes. What is counted, drawn, opened and closed is left out:
 * `verify` computes that from the journal.
 */
const TERMS: Readonly<Record<number, Readonly<Record<string, readonly string[]>>>> = Object.freeze({
  1: FIRST_TERMS,
  2: { ...FIRST_TERMS, price: [...FIRST_TERMS.price, 'more'] },
})

/** Moments are written in microseconds since 1970, so that no setting of a session changes the text. */
const MOMENTS: ReadonlySet<string> = new Set(['recorded_at', 'created_at', 'effective_at', 'expires_at'])

/** As text, of any moment: infinity, which only a hand writes, is `Infinity`. */
export function microsOf(moment: RawBuilder<unknown>): RawBuilder<string> {
  return sql<string>`trunc(extract(epoch from ${moment}) * 1000000)::text`
}

/**
 * SHA-256 over the rows of `t` in (xid, seq) order, one line each, as Postgres writes a record: `(a,b,"with a comma",,)`.
 * Undefined for a format that this version does not know.
 */
export function digestOf(format: number): RawBuilder<Buffer> | undefined {
  const columns = COLUMNS[format]
  if (!columns) return undefined
  const record = recordOf('t', columns)
  return sql<Buffer>`sha256(convert_to(string_agg(${record}, e'\n' order by t.xid, t.seq), 'UTF8'))`
}

/** SHA-256 over what the journal rests on that was written behind one transaction, up to and with another. */
export function termsOf(
  format: number,
  written: { readonly after: RawBuilder<unknown>; readonly upTo: RawBuilder<unknown> },
): RawBuilder<Buffer> {
  const tables = Object.entries(TERMS[format] ?? {}).map(
    ([table, columns]) => sql`
      select ${sql.lit(table)} || ${recordOf('w', columns)}${later(table, columns)} as line from ${sql.table(table)} w
      where w.made_in > ${written.after} and w.made_in <= ${written.upTo}`,
  )
  return sql<Buffer>`(
    select sha256(convert_to(coalesce(string_agg(r.line, e'\n' order by r.line collate "C"), ''), 'UTF8'))
    from (${sql.join(tables, sql` union all `)}) r)`
}

/** What a price has got since its block was sealed is none of it: it could only be there by hand, and changes the line. */
function later(table: string, columns: readonly string[]): RawBuilder<unknown> {
  return table === 'price' && !columns.includes('more') ? sql` || coalesce(w.more::text, '')` : sql``
}

function recordOf(alias: string, columns: readonly string[]): RawBuilder<string> {
  const fields = columns.map((column) => {
    const field = sql.ref(`${alias}.${column}`)
    return MOMENTS.has(column) ? microsOf(field) : field
  })
  return sql<string>`row(${sql.join(fields)})::text`
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
  readonly terms: Buffer
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
    block.terms.toString('hex'),
    `${block.firstXid}:${block.firstSeq}`,
    `${block.lastXid}:${block.lastSeq}`,
    block.count,
    block.sealedAtMicros,
  ]
  return createHash('sha256').update(lines.join('\n')).digest()
}
