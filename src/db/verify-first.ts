import { sql, type Kysely, type RawBuilder } from 'kysely'
import { isWithin, isLater, piecesOf, type JournalRange, type Place } from './journal-range.ts'
import { inLanes } from './verify-check.ts'
import type { Database } from './schema.ts'

/** A row that is wrong, in words, and where it stands. */
export interface WrongRow {
  readonly name: string
  readonly wrong: string
  readonly xid: string
  readonly seq: bigint
}

/** The first movement of an account that does not follow from those before it. Exact; for a ledger that is wrong. */
export async function firstBrokenMovement(db: Kysely<Database>, account: string): Promise<string> {
  const { rows } = await sql<{ name: string; wrong: string }>`
    select 'transfer ' || id as name,
      case when balance < held then 'holds ' || held || ' of ' || balance
        else 'says balance ' || balance || ' and held ' || held || ', its movements give ' || running_posted || ' and '
          || running_pending end as wrong
    from (
      select s.*, sum(posted) over history as running_posted, sum(pending) over history as running_pending
      from (${sidesOf(account)}) s window history as (order by version, seq)
    ) r
    where balance < held or balance <> running_posted or held <> running_pending
    order by version, seq limit 1`.execute(db)
  const [first] = rows
  return first ? `${first.name}: ${first.wrong}` : `account ${account}: its movements do not follow from each other`
}

/** The first row of a piece whose numbers no account can have. */
export async function firstOversized(db: Kysely<Database>, piece: JournalRange): Promise<string> {
  const numbers = [
    'amount',
    'released',
    'debit_version',
    'debit_balance',
    'debit_held',
    'credit_version',
    'credit_balance',
    'credit_held',
  ]
  const sizes = numbers.map((column) => sql`abs(coalesce(${sql.ref(`t.${column}`)}, 0)::numeric)`)
  const { rows } = await sql<{ id: string }>`
    select t.id from transfer t where ${isWithin(piece)} and greatest(${sql.join(sizes)}) > ${LARGEST.toString()}::numeric
    order by t.xid, t.seq limit 1`.execute(db)
  return rows[0] ? `transfer ${rows[0].id}` : 'a transfer'
}

/** Sums of what is smaller stay within 64 bits. */
const LARGEST = 2n ** 61n

/** What each movement of an account did to it. */
function sidesOf(account: string): RawBuilder<unknown> {
  return sql`
    select t.id, t.seq, t.debit_version as version, t.debit_balance as balance, t.debit_held as held,
      case when t.code in ('hold', 'void', 'expire') then 0 else -t.amount end as posted,
      case when t.code = 'hold' then t.amount else -t.released end as pending
    from transfer t where t.debit_account = ${account} and t.debit_version is not null
    union all
    select t.id, t.seq, t.credit_version, t.credit_balance, t.credit_held, t.amount, 0
    from transfer t where t.credit_account = ${account} and t.credit_version is not null`
}

/** Asks piece by piece for the first row of the journal that is wrong. */
export async function firstWrongIn(
  db: Kysely<Database>,
  request: {
    readonly range: JournalRange
    readonly pieceRows: number
    /** Rows of (name, wrong, xid, seq) of one piece, `wrong` being null where all is right. */
    readonly rows: (piece: RawBuilder<boolean>) => RawBuilder<unknown>
  },
): Promise<string | null> {
  let first: WrongRow | undefined
  const note = (row: WrongRow): void => {
    if (!first || isLater(placeOfRow(first), placeOfRow(row))) first = row
  }
  await inLanes(piecesOf(db, request.range, request.pieceRows), async (piece) => {
    const row = await readFirst(db, request.rows(isWithin(piece)))
    if (row) note(row)
  })
  return first === undefined ? null : sentenceOf(first)
}

/** The same in one statement. */
export async function firstWrongAtOnce(db: Kysely<Database>, rows: RawBuilder<unknown>): Promise<string | null> {
  const first = await readFirst(db, rows)
  return first === undefined ? null : sentenceOf(first)
}

async function readFirst(db: Kysely<Database>, checked: RawBuilder<unknown>): Promise<WrongRow | undefined> {
  const { rows } = await sql<WrongRow>`
    select c.name, c.wrong, c.xid::text as xid, c.seq from (${checked}) c
    where c.wrong is not null order by c.xid, c.seq limit 1`.execute(db)
  return rows[0]
}

function placeOfRow({ xid, seq }: WrongRow): Place {
  return { xid: BigInt(xid), seq }
}

function sentenceOf({ name, wrong }: WrongRow): string {
  return `${name}: ${wrong}`
}
