import { sql, type Kysely, type RawBuilder } from 'kysely'
import { isWithin, type JournalRange } from './journal-range.ts'
import type { Database } from './schema.ts'

/**
 * What the movements of one guarded account add up to. Everything here is a sum (or a maximum), so it is the same in
 * whatever order, and by however many statements, the journal was read.
 */
export interface Fold {
  count: bigint
  /** The highest version, and the sum of all of them: 1..n without a gap has n and n(n+1)/2. */
  newest: bigint
  versions: bigint
  posted: bigint
  pending: bigint
  /** Sums of the hashes of (version, balance, held) as written by each movement, and as it must have found them. */
  after: bigint
  before: bigint
  /** Whether a movement left it with less than it held. */
  isOverdrawn: boolean
  /** Whether anything was added since it was made. */
  isTouched: boolean
}

/** What one statement says about all rows of a piece that have these accounts, this code, and so on in common. */
export interface Group {
  readonly debit: string
  readonly credit: string
  readonly code: string
  readonly projectId: string
  readonly currency: string
  readonly isDebitGuarded: boolean
  readonly isCreditGuarded: boolean
  readonly rows: bigint
  readonly amount: string
  readonly released: string
  readonly debitNewest: bigint | null
  readonly debitVersions: string | null
  readonly debitAfter: string | null
  readonly debitBefore: string | null
  readonly creditNewest: bigint | null
  readonly creditVersions: string | null
  readonly creditAfter: string | null
  readonly creditBefore: string | null
  readonly isOverdrawn: boolean | null
  /** Sum of the hashes of what was held; resolutions count against it. */
  readonly holds: string | null
  /** A resolution that takes more than its hold, or that is unknown and not the whole hold. */
  readonly isHoldBroken: boolean | null
}

const NOBODY = '00000000-0000-0000-0000-000000000000'

/** A hash of an account's state: 64 bits, so that sums of them agree by chance for nobody. */
export function stateHash(version: RawBuilder<unknown>, balance: RawBuilder<unknown>, held: RawBuilder<unknown>) {
  return sql`hashint8extended(${held}, hashint8extended(${balance}, hashint8extended(${version}, 0)))`
}

/** A hash of a hold, from the row that made it, from the one that resolved it, or from its attempt. */
export function holdHash(row: {
  readonly id: RawBuilder<unknown>
  readonly account: RawBuilder<unknown>
  readonly amount: RawBuilder<unknown>
  readonly alias: string
  readonly attempt: string
}): RawBuilder<unknown> {
  const own = (column: string) => sql.ref(`${row.alias}.${column}`)
  const uuid = (column: string) => sql`coalesce(${own(column)}, ${sql.lit(NOBODY)}::uuid)`
  const call = sql`hashint8extended(${row.amount}, coalesce(${own(row.attempt)}, -1))`
  const named = sql`uuid_hash_extended(${uuid('run_id')}, uuid_hash_extended(${uuid('envelope_id')},
    uuid_hash_extended(${uuid('call_id')}, ${call})))`
  return sql`uuid_hash_extended(${row.id}, uuid_hash_extended(${row.account}, ${named}))`
}

const posted = sql`case when t.code in ('hold', 'void', 'expire') then 0 else -t.amount end`
const pending = sql`case when t.code = 'hold' then t.amount else -t.released end`
const debitAfter = stateHash(sql`t.debit_version`, sql`t.debit_balance`, sql`t.debit_held`)
const debitBefore = stateHash(
  sql`t.debit_version - 1`,
  sql`t.debit_balance - (${posted})`,
  sql`t.debit_held - (${pending})`,
)
const creditAfter = stateHash(sql`t.credit_version`, sql`t.credit_balance`, sql`t.credit_held`)
const creditBefore = stateHash(sql`t.credit_version - 1`, sql`t.credit_balance - t.amount`, sql`t.credit_held`)
const heldBy = (id: string, amount: string) =>
  holdHash({ id: sql.ref(id), account: sql`t.debit_account`, amount: sql.ref(amount), alias: 't', attempt: 'attempt' })

/** One short statement over one piece of the journal. */
export async function readGroups(db: Kysely<Database>, where: RawBuilder<boolean>): Promise<readonly Group[]> {
  const { rows } = await sql<Group>`
    select t.debit_account as debit, t.credit_account as credit, t.code, t.project_id as "projectId", t.currency,
      t.debit_version is not null as "isDebitGuarded", t.credit_version is not null as "isCreditGuarded",
      count(*) as rows, sum(t.amount)::text as amount, sum(t.released)::text as released,
      max(t.debit_version) as "debitNewest", sum(t.debit_version)::text as "debitVersions",
      sum(${debitAfter})::text as "debitAfter", sum(${debitBefore})::text as "debitBefore",
      max(t.credit_version) as "creditNewest", sum(t.credit_version)::text as "creditVersions",
      sum(${creditAfter})::text as "creditAfter", sum(${creditBefore})::text as "creditBefore",
      bool_or(t.debit_balance < t.debit_held or t.credit_balance < t.credit_held) as "isOverdrawn",
      sum(case when t.code = 'hold' then ${heldBy('t.id', 't.amount')}
        when t.pending_id is not null then ${heldBy('t.pending_id', 't.released')} end)::text as holds,
      bool_or(t.pending_id is not null and (t.amount > t.released or (t.certainty = 'unknown' and t.amount <> t.released)))
        as "isHoldBroken"
    from transfer t where ${where}
    group by 1, 2, 3, 4, 5, 6, 7`.execute(db)
  return rows
}

/** What was there before the first row that is added. */
export interface FoldStart {
  readonly accounts?: ReadonlyMap<string, Fold>
  readonly holds?: bigint
  readonly carved?: ReadonlyMap<string, bigint>
  readonly returned?: ReadonlyMap<string, bigint>
}

/** Many accounts' folds, and the sums that belong to no account. */
export class JournalFold {
  readonly accounts: Map<string, Fold>
  rows = 0n
  /** Sum over holds less sum over resolutions: what must be open. */
  holds: bigint
  isHoldBroken = false
  /** What was carved, and what was returned to wherever it came from, by `debit credit`. */
  readonly carved: Map<string, bigint>
  readonly returned: Map<string, bigint>

  constructor(start: FoldStart = {}) {
    this.accounts = new Map(start.accounts)
    this.holds = start.holds ?? 0n
    this.carved = new Map(start.carved)
    this.returned = new Map(start.returned)
  }

  add(groups: readonly Group[]): void {
    for (const group of groups) this.#addGroup(group)
  }

  #addGroup(group: Group): void {
    const amount = BigInt(group.amount)
    this.rows += group.rows
    if (group.isHoldBroken === true) this.isHoldBroken = true
    if (group.holds !== null) this.holds += group.code === 'hold' ? BigInt(group.holds) : -BigInt(group.holds)
    if (group.code === 'carve') count(this.carved, group, amount)
    if (group.code === 'return') count(this.returned, group, amount)
    if (group.isDebitGuarded) {
      const fold = this.#foldOf(group.debit)
      if (group.isOverdrawn === true) fold.isOverdrawn = true
      add(fold, group.rows, [group.debitNewest, group.debitVersions, group.debitAfter, group.debitBefore])
      if (!KEEPS_BALANCE.has(group.code)) fold.posted -= amount
      fold.pending += group.code === 'hold' ? amount : -BigInt(group.released)
    }
    if (group.isCreditGuarded) {
      const fold = this.#foldOf(group.credit)
      if (group.isOverdrawn === true) fold.isOverdrawn = true
      add(fold, group.rows, [group.creditNewest, group.creditVersions, group.creditAfter, group.creditBefore])
      fold.posted += amount
    }
  }

  #foldOf(account: string): Fold {
    const known = this.accounts.get(account)
    if (known) return known
    const fold = emptyFold()
    this.accounts.set(account, fold)
    return fold
  }
}

function count(moved: Map<string, bigint>, { debit, credit }: Group, amount: bigint): void {
  const key = `${debit} ${credit}`
  moved.set(key, (moved.get(key) ?? 0n) + amount)
}

/** Movements that leave the balance as it is, and only change what is held. */
const KEEPS_BALANCE: ReadonlySet<string> = new Set(['hold', 'void', 'expire'])

type Sums = readonly [bigint | null, string | null, string | null, string | null]

function add(fold: Fold, rows: bigint, [newest, versions, after, before]: Sums): void {
  fold.count += rows
  if ((newest ?? 0n) > fold.newest) fold.newest = newest ?? 0n
  fold.versions += BigInt(versions ?? 0)
  fold.after += BigInt(after ?? 0)
  fold.before += BigInt(before ?? 0)
  fold.isTouched = true
}

export function emptyFold(): Fold {
  return foldAt({ version: 0n, balance: 0n, held: 0n })
}

/** The fold of an account that is known to have come to this state. */
export function foldAt(state: { readonly version: bigint; readonly balance: bigint; readonly held: bigint }): Fold {
  const { version, balance, held } = state
  return {
    count: version,
    newest: version,
    versions: sumUpTo(version),
    posted: balance,
    pending: held,
    after: 0n,
    before: 0n,
    isOverdrawn: false,
    isTouched: false,
  }
}

export function sumUpTo(version: bigint): bigint {
  return (version * (version + 1n)) / 2n
}

export function readRange(db: Kysely<Database>, range: JournalRange): Promise<readonly Group[]> {
  return readGroups(db, isWithin(range))
}
