import type { BalanceClass } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import { foldCounterparty, type Audience } from './counterparty.ts'
import type { Database } from './schema.ts'

/** An account as of an instant, in nano. */
export interface AccountBalance {
  readonly accountId: string
  readonly kind: string
  readonly balanceClass: BalanceClass | null
  readonly currency: string
  readonly walletId: string | null
  readonly envelopeId: string | null
  /** What came in minus what went out: over all accounts of a project and currency this adds up to zero. */
  readonly posted: bigint
  /** Of it, what open holds keep; for the providers' account, what open holds may still bring. */
  readonly held: bigint
  /** How many movements it had had; null for counterparties, which are folded and not numbered. */
  readonly version: bigint | null
}

/**
 * Any account's balance as of an instant. Undefined when the project has no such account, or when it is the seller's own
 * and a customer asks.
 */
export async function accountBalance(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly accountId: string; readonly at: string; readonly audience: Audience },
): Promise<AccountBalance | undefined> {
  const { rows } = await sql<AccountBalance>`
    select a.id as "accountId", a.kind, a.balance_class as "balanceClass", a.currency, a.wallet_id as "walletId",
      a.envelope_id as "envelopeId", coalesce(s.posted, 0) as posted, coalesce(s.held, 0) as held,
      case when a.kind in ('wallet', 'pocket') then coalesce(s.version, 0) end as version
    from account a
    left join lateral account_at(a.id, ${request.at}::timestamptz) s on a.kind in ('wallet', 'pocket')
    where a.id = ${request.accountId} and a.project_id = ${scope.projectId}`.execute(db)
  const [row] = rows
  if (!row || row.version !== null) return row
  const { at, audience } = request
  if (row.kind === 'revenue' && audience === 'customer') return undefined
  return { ...row, ...(await foldCounterparty(db, scope, { ...row, at, audience })) }
}

/** One balance class and currency of a wallet as of an instant, in nano. */
export interface WalletBalance {
  /** Null when only envelopes have money of this kind, from an exchange. */
  readonly accountId: string | null
  readonly balanceClass: BalanceClass
  readonly currency: string
  /** What the wallet's account had. */
  readonly available: bigint
  /** What stood in its envelopes, held money included. */
  readonly inEnvelopes: bigint
  /** The last movement of the wallet's account by then; zero before the first. */
  readonly seq: bigint
}

/** Pockets of one read: each costs about a millisecond, and no snapshot is held for more than a second. */
const POCKETS_PER_READ = 200

/** A wallet's accounts as of an instant: of those that there are now, also the ones that were empty then. */
export async function walletBalances(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly walletId: string; readonly at: string },
): Promise<readonly WalletBalance[]> {
  const { rows } = await sql<Omit<WalletBalance, 'inEnvelopes'>>`
    select a.id as "accountId", a.balance_class as "balanceClass", a.currency, coalesce(s.posted, 0) as available,
      coalesce(s.seq, 0) as seq
    from account a left join lateral account_at(a.id, ${request.at}::timestamptz) s on true
    where a.project_id = ${scope.projectId} and a.kind = 'wallet' and a.wallet_id = ${request.walletId}
    order by a.balance_class desc, a.currency`.execute(db)
  const inEnvelopes = await sumOfPockets(db, scope, request)
  const balances = rows.map((row) => ({ ...row, inEnvelopes: 0n }))
  return inEnvelopes.reduce(addPockets, balances)
}

/** An exchange leaves pockets of a currency that the wallet has no account of. */
function addPockets(balances: readonly WalletBalance[], pockets: PocketSum): readonly WalletBalance[] {
  const { balanceClass, currency, posted } = pockets
  const index = balances.findIndex((each) => each.balanceClass === balanceClass && each.currency === currency)
  const own = balances[index] ?? { accountId: null, balanceClass, currency, available: 0n, inEnvelopes: 0n, seq: 0n }
  const sum = { ...own, inEnvelopes: own.inEnvelopes + posted }
  return index < 0 ? [...balances, sum] : balances.with(index, sum)
}

interface PocketSum {
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly posted: bigint
}

/** By balance class and currency, in parts. Envelopes that were closed by then are empty. */
async function sumOfPockets(
  db: Kysely<Database>,
  scope: Scope,
  { walletId, at }: { readonly walletId: string; readonly at: string },
): Promise<readonly PocketSum[]> {
  const { rows: pockets } = await sql<{ readonly id: string }>`
    select a.id from envelope e join account a on a.kind = 'pocket' and a.envelope_id = e.id
    where e.project_id = ${scope.projectId} and e.wallet_id = ${walletId} and e.created_at <= ${at}::timestamptz
      and (e.closed_at is null or e.closed_at > ${at}::timestamptz)
    order by a.id`.execute(db)
  const sums: PocketSum[] = []
  for (let start = 0; start < pockets.length; start += POCKETS_PER_READ) {
    const ids = pockets.slice(start, start + POCKETS_PER_READ).map(({ id }) => id)
    const { rows } = await sql<PocketSum>`
      select a.balance_class as "balanceClass", a.currency, sum(s.posted)::bigint as posted
      from account a cross join lateral account_at(a.id, ${at}::timestamptz) s
      where a.id = any(${ids}::uuid[]) group by 1, 2 order by 1 desc, 2`.execute(db)
    sums.push(...rows)
  }
  return sums
}
