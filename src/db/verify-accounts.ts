import { sql, type Kysely } from 'kysely'
import type { Finding } from './verify-check.ts'
import { emptyFold, readGroups, stateHash, sumUpTo, JournalFold, type Fold } from './verify-fold.ts'
import type { Place } from './journal-range.ts'
import { firstBrokenMovement } from './verify-first.ts'
import type { Database } from './schema.ts'

/** Accounts of one statement. */
const PAGE = 20_000
/** Accounts that moved on are read together with their newest movements: this many in one statement. */
const MOVED_PAGE = 2_000
const FIRST_ID = '00000000-0000-0000-0000-000000000000'

/** A guarded account as it says it is. */
interface Stored {
  readonly id: string
  readonly balance: bigint
  readonly held: bigint
  readonly version: bigint
}

interface Compared extends Stored {
  readonly fold: Fold
}

export interface AccountFindings {
  readonly fold: Finding
  readonly versions: Finding
  readonly neverNegative: Finding
}

/** Compares every guarded account with the fold of its movements, each at a version that both have seen. */
export async function compareAccounts(
  db: Kysely<Database>,
  journal: { readonly fold: JournalFold; readonly start: ReadonlyMap<string, Fold>; readonly upTo: Place },
): Promise<AccountFindings> {
  const wrong = new Wrong()
  let rows = 0
  let after = FIRST_ID
  for (;;) {
    const page = await readAccounts(db, after)
    const last = page.at(-1)
    if (!last) break
    after = last.id
    rows += page.length
    const known = page.map((stored) => ({ ...stored, fold: journal.fold.accounts.get(stored.id) ?? emptyFold() }))
    wrong.add(known.filter(({ version, fold }) => version === fold.count))
    const moved = known.filter(({ version, fold }) => version !== fold.count)
    for (let at = 0; at < moved.length; at += MOVED_PAGE) {
      wrong.add(await catchUp(db, moved.slice(at, at + MOVED_PAGE), journal.upTo))
    }
  }
  await compareStates(db, journal, wrong)
  return findings(db, { rows, wrong, movements: Number(journal.fold.rows) })
}

/** The first account, by id, that each check finds wrong. */
class Wrong {
  readonly #first = new Map<'fold' | 'versions' | 'states', Compared>()

  add(accounts: readonly Compared[]): void {
    for (const account of accounts) {
      const { fold } = account
      if (account.balance !== fold.posted || account.held !== fold.pending) this.note('fold', account)
      if (fold.count !== account.version || fold.newest !== account.version) this.note('versions', account)
      else if (fold.versions !== sumUpTo(account.version)) this.note('versions', account)
    }
  }

  note(check: 'fold' | 'versions' | 'states', account: Compared): void {
    const known = this.#first.get(check)
    if (!known || account.id < known.id) this.#first.set(check, account)
  }

  get(check: 'fold' | 'versions' | 'states'): Compared | undefined {
    return this.#first.get(check)
  }
}

async function readAccounts(db: Kysely<Database>, after: string): Promise<readonly Stored[]> {
  const { rows } = await sql<Stored>`
    select id, posted_credit - posted_debit as balance, pending_debit as held, version from account
    where kind in ('wallet', 'pocket') and id > ${after} order by id limit ${PAGE}`.execute(db)
  return rows
}

/** Reads accounts that moved on, and what moved them, in one snapshot: what was read before is all there is below it. */
async function catchUp(db: Kysely<Database>, accounts: readonly Compared[], upTo: Place): Promise<readonly Compared[]> {
  const ids = accounts.map(({ id }) => id)
  return db
    .transaction()
    .setIsolationLevel('repeatable read')
    .setAccessMode('read only')
    .execute(async (trx) => {
      const rest = new JournalFold({
        accounts: new Map(accounts.map(({ id, fold }) => [id, { ...fold }])),
      })
      rest.add(
        await readGroups(
          trx,
          sql<boolean>`t.xid > ${upTo.xid.toString()}::text::xid8
            and (t.debit_account = any(${ids}::uuid[]) or t.credit_account = any(${ids}::uuid[]))`,
        ),
      )
      const { rows } = await sql<Stored>`
        select id, posted_credit - posted_debit as balance, pending_debit as held, version from account
        where id = any(${ids}::uuid[])`.execute(trx)
      return rows.map((stored) => ({ ...stored, fold: rest.accounts.get(stored.id) ?? emptyFold() }))
    })
}

/**
 * The states that movements wrote and those they must have found are the same, but for the first and the last: with one
 * version less, what a movement found is what the one before it wrote. Both sides are sums of hashes.
 */
async function compareStates(
  db: Kysely<Database>,
  journal: { readonly fold: JournalFold; readonly start: ReadonlyMap<string, Fold> },
  wrong: Wrong,
): Promise<void> {
  const touched = [...journal.fold.accounts].filter(([, fold]) => fold.isTouched)
  for (let at = 0; at < touched.length; at += PAGE) {
    const page = touched.slice(at, at + PAGE)
    const ends = await hashesOf(
      db,
      page.map(([, fold]) => fold),
    )
    const starts = await hashesOf(
      db,
      page.map(([id]) => journal.start.get(id) ?? emptyFold()),
    )
    page.forEach(([id, fold], index) => {
      const start = starts[index] ?? 0n
      const end = ends[index] ?? 0n
      if (start + fold.after === fold.before + end && !fold.isOverdrawn) return
      wrong.note('states', { id, balance: fold.posted, held: fold.pending, version: fold.count, fold })
    })
  }
}

async function hashesOf(db: Kysely<Database>, folds: readonly Fold[]): Promise<readonly bigint[]> {
  const column = (of: (fold: Fold) => bigint) => folds.map((fold) => of(fold).toString())
  const { rows } = await sql<{ hash: bigint }>`
    select ${stateHash(sql`s.version`, sql`s.balance`, sql`s.held`)} as hash
    from unnest(${column((fold) => fold.count)}::bigint[], ${column((fold) => fold.posted)}::bigint[],
      ${column((fold) => fold.pending)}::bigint[]) with ordinality as s(version, balance, held, place)
    order by s.place`.execute(db)
  return rows.map(({ hash }) => hash)
}

async function findings(
  db: Kysely<Database>,
  found: { readonly rows: number; readonly wrong: Wrong; readonly movements: number },
): Promise<AccountFindings> {
  const { rows, wrong, movements } = found
  const fold = wrong.get('fold')
  const versions = wrong.get('versions')
  const states = wrong.get('states')
  return {
    fold: { rows, firstWrong: fold ? `account ${fold.id}: ${whatIsFolded(fold)}` : null },
    versions: { rows, firstWrong: versions ? `account ${versions.id}: ${whatIsNumbered(versions)}` : null },
    neverNegative: { rows: movements, firstWrong: states ? await firstBrokenMovement(db, states.id) : null },
  }
}

function whatIsFolded({ balance, held, fold }: Compared): string {
  if (balance !== fold.posted) return `its balance is ${balance}, its movements add up to ${fold.posted}`
  return `it holds ${held}, its open holds add up to ${fold.pending}`
}

function whatIsNumbered({ version, fold }: Compared): string {
  const numbers = fold.newest === version && fold.count === version ? ', not numbered one by one' : ''
  return `it is at version ${version} and has ${fold.count} movements${numbers}`
}
