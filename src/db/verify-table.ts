import { sql, type Kysely, type RawBuilder } from 'kysely'
import { isWithin, type JournalRange } from './journal-range.ts'
import { inLanes, type Claim, type Finding } from './verify-check.ts'
import { byKey, bySet, withWholeTables, type Lookup } from './verify-lookup.ts'
import type { Database } from './schema.ts'

/** A check of a table's rows: in pieces by its key, each piece a short statement of its own; or of the table at once. */
export interface TableCheck extends Claim {
  readonly table:
    | 'account'
    | 'attempt'
    | 'call'
    | 'envelope'
    | 'lease'
    | 'limit_window'
    | 'lot'
    | 'payload'
    | 'refusal'
    | 'run'
    | 'run_threshold'
    | 'usage_limit'
  /** A uuid column with an index, and how `rows` calls the table. */
  readonly key: string
  readonly alias: string
  /** Those of the table's rows that it looks at, by an index; left out: all. */
  readonly only?: RawBuilder<boolean>
  /** Rows of one statement. `whole` and `moved` do not look at it. */
  readonly pieceRows: number
  /** Whether its rows are as many as those of the journal, each with others to be looked up. */
  readonly isOfCalls?: boolean
  /** The column of a movement that names rows of this table: what has moved is looked at again. Null: only when all is. */
  readonly movedBy: 'call_id' | 'envelope_id' | 'lot_id' | null
  /** Rows of (name, wrong, place): `wrong` is null when the row is right; the lowest place is the first. */
  readonly rows: (piece: RawBuilder<boolean>, join: Lookup) => RawBuilder<unknown>
}

/**
 * Which rows, and how: `whole` reads a table of calls at once, `pieces` in short statements, and `moved` only the rows that
 * movements of a range name.
 */
export type Reach = { readonly kind: 'whole' | 'pieces' } | { readonly kind: 'moved'; readonly range: JournalRange }

/** The place of a row by a moment. Infinity, which only a hand writes, is no place. */
export function epochOf(moment: RawBuilder<unknown>): RawBuilder<bigint> {
  return sql<bigint>`case when isfinite(${moment}) then extract(epoch from ${moment})::bigint else 0 end`
}

interface PieceResult {
  readonly rows: bigint
  /** The place of the first row that is wrong, and behind a space its sentence. */
  readonly firstWrong: string | null
}

export async function runTableCheck(db: Kysely<Database>, check: TableCheck, reach: Reach): Promise<Finding> {
  const found = new FirstWrong()
  if (reach.kind === 'whole' && check.isOfCalls === true) {
    found.add(await withWholeTables(db, (trx) => readRows(trx, check.rows(sql`true`, bySet))))
    return found.finding()
  }
  await inLanes(reach.kind === 'moved' ? oncePiece(check, reach.range) : keyPieces(db, check), async (piece) => {
    found.add(await readRows(db, check.rows(piece, byKey)))
  })
  return found.finding()
}

class FirstWrong {
  #rows = 0
  #first: { readonly place: bigint; readonly sentence: string } | undefined

  add({ rows, firstWrong }: PieceResult): void {
    this.#rows += Number(rows)
    if (firstWrong === null) return
    const end = firstWrong.indexOf(' ')
    const place = BigInt(firstWrong.slice(0, end))
    if (!this.#first || place < this.#first.place) this.#first = { place, sentence: firstWrong.slice(end + 1) }
  }

  finding(): Finding {
    return { rows: this.#rows, firstWrong: this.#first?.sentence ?? null }
  }
}

/** In one aggregate: a row's `wrong` is computed once, and whatever else only when it is wrong. */
async function readRows(db: Kysely<Database>, checked: RawBuilder<unknown>): Promise<PieceResult> {
  const { rows } = await sql<PieceResult>`
    select count(*) as rows, (array_agg(coalesce(place, 0) || ' ' || name || ': ' || wrong order by place)
      filter (where wrong is not null))[1] as "firstWrong"
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
  check: Pick<TableCheck, 'table' | 'key' | 'alias' | 'pieceRows' | 'only'>,
): () => Promise<RawBuilder<boolean> | undefined> {
  const own = sql.ref(`${check.alias}.${check.key}`)
  const key = sql.ref(check.key)
  let after: string | undefined = '00000000-0000-0000-0000-000000000000'
  return async () => {
    if (after === undefined) return undefined
    const from = after
    const { rows } = await sql<{ key: string }>`
      select ${key} as key from ${sql.table(check.table)} where ${key} > ${from} and ${check.only ?? sql`true`}
      order by ${key} offset ${check.pieceRows - 1} limit 1`.execute(db)
    after = rows[0]?.key
    return after === undefined ? sql`${own} > ${from}` : sql`(${own} > ${from} and ${own} <= ${after})`
  }
}
