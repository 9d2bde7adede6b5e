import { sql, type Kysely, type RawBuilder } from 'kysely'
import { isWithin, type JournalRange } from './journal-range.ts'
import { inLanes, type Claim, type Finding } from './verify-check.ts'
import type { Database } from './schema.ts'

/** A check of a table's rows, in pieces by its key, each piece a short statement of its own. */
export interface TableCheck extends Claim {
  readonly table:
    | 'account'
    | 'attempt'
    | 'call'
    | 'envelope'
    | 'lease'
    | 'limit_window'
    | 'lot'
    | 'refusal'
    | 'usage_limit'
  /** A uuid column with an index, and how `rows` calls the table. */
  readonly key: string
  readonly alias: string
  readonly pieceRows: number
  /** The column of a movement that names rows of this table: what has moved is looked at again. Null: only when all is. */
  readonly movedBy: 'call_id' | 'envelope_id' | 'lot_id' | null
  /** Rows of (name, wrong, place): `wrong` is null when the row is right; the lowest place is the first. */
  readonly rows: (piece: RawBuilder<boolean>) => RawBuilder<unknown>
}

/**
 * The row that another one names, looked up by its key. A plain join could be turned into one that reads all there is
 * before the piece, for every piece anew; and was, as tables grew.
 */
export function byKey(table: string, alias: string, condition: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`left join lateral (
    select * from ${sql.table(table)} ${sql.ref(alias)} where ${condition} limit 1) ${sql.ref(alias)} on true`
}

/** The place of a row by a moment. Infinity, which only a hand writes, is no place. */
export function epochOf(moment: RawBuilder<unknown>): RawBuilder<bigint> {
  return sql<bigint>`case when isfinite(${moment}) then extract(epoch from ${moment})::bigint else 0 end`
}

interface PieceResult {
  readonly rows: bigint
  readonly firstWrong: string | null
  readonly place: bigint | null
}

/** `moved`: only the rows that movements of this range name. */
export async function runTableCheck(db: Kysely<Database>, check: TableCheck, moved?: JournalRange): Promise<Finding> {
  let rows = 0
  let first: { readonly place: bigint; readonly sentence: string } | undefined
  await inLanes(moved ? oncePiece(check, moved) : keyPieces(db, check), async (piece) => {
    const result = await readRows(db, check.rows(piece))
    rows += Number(result.rows)
    if (result.firstWrong === null) return
    const place = result.place ?? 0n
    if (!first || place < first.place) first = { place, sentence: result.firstWrong }
  })
  return { rows, firstWrong: first?.sentence ?? null }
}

async function readRows(db: Kysely<Database>, checked: RawBuilder<unknown>): Promise<PieceResult> {
  const { rows } = await sql<PieceResult>`
    select count(*) as rows, min(place) filter (where wrong is not null) as place,
      (array_agg(name || ': ' || wrong order by place) filter (where wrong is not null))[1] as "firstWrong"
    from (${checked}) as checked`.execute(db)
  const [row] = rows
  if (!row) throw new Error('an aggregate without a row')
  return row
}

function oncePiece(check: TableCheck, range: JournalRange): () => Promise<RawBuilder<boolean> | undefined> {
  const column = sql.ref(`t.${check.movedBy ?? 'call_id'}`)
  // An array is looked up key by key, whatever the planner believes of the tables' sizes.
  const named = sql<boolean>`${sql.ref(`${check.alias}.${check.key}`)} = any(array(
    select distinct ${column} from transfer t where ${isWithin(range)} and ${column} is not null))`
  let isGiven = false
  return () => {
    if (isGiven) return Promise.resolve(undefined)
    isGiven = true
    return Promise.resolve(named)
  }
}

/** The rows of a table in pieces by a key, each as the condition that its rows meet. */
export function keyPieces(
  db: Kysely<Database>,
  check: Pick<TableCheck, 'table' | 'key' | 'alias' | 'pieceRows'>,
): () => Promise<RawBuilder<boolean> | undefined> {
  const own = sql.ref(`${check.alias}.${check.key}`)
  const key = sql.ref(check.key)
  let after: string | undefined = '00000000-0000-0000-0000-000000000000'
  return async () => {
    if (after === undefined) return undefined
    const from = after
    const { rows } = await sql<{ key: string }>`
      select ${key} as key from ${sql.table(check.table)} where ${key} > ${from}
      order by ${key} offset ${check.pieceRows - 1} limit 1`.execute(db)
    after = rows[0]?.key
    return after === undefined ? sql`${own} > ${from}` : sql`(${own} > ${from} and ${own} <= ${after})`
  }
}
