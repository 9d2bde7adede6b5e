import type { Page } from '#contracts/api-page.ts'
import type { BalanceClass } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import { newId } from './ids.ts'
import { pageBy } from './page.ts'
import type { Database } from './schema.ts'

export interface Wallet {
  readonly id: string
  readonly createdAt: Date
}

export interface Balance {
  readonly balanceClass: BalanceClass
  readonly currency: string
  /** In nano, as all that follows. */
  readonly available: bigint
  /** Of credit: the sum of its lots, which is what is available. */
  readonly inLots: bigint | null
  readonly inEnvelopes: bigint
}

export interface Debt {
  readonly currency: string
  readonly amount: bigint
}

/** Undefined when the project has a wallet already. */
export async function createWallet(db: Kysely<Database>, scope: Scope, nowMs: number): Promise<Wallet | undefined> {
  const row = await db
    .insertInto('wallet')
    .values({ id: newId(nowMs), project_id: scope.projectId })
    .onConflict((conflict) => conflict.column('project_id').doNothing())
    .returning(['id', 'created_at'])
    .executeTakeFirst()
  return row && { id: row.id, createdAt: row.created_at }
}

export async function getWallet(db: Kysely<Database>, scope: Scope): Promise<Wallet | undefined> {
  const row = await db
    .selectFrom('wallet')
    .select(['id', 'created_at'])
    .where('project_id', '=', scope.projectId)
    .executeTakeFirst()
  return row && { id: row.id, createdAt: row.created_at }
}

/** What the project has, one line for each balance class and currency: one statement, so that nothing moves meanwhile. */
export async function balancesOf(db: Kysely<Database>, scope: Scope): Promise<readonly Balance[]> {
  const { rows } = await sql<Balance>`
    select balance_class as "balanceClass", currency,
      coalesce(sum(posted_credit - posted_debit - pending_debit) filter (where kind = 'wallet'), 0)::bigint as available,
      coalesce(sum(posted_credit - posted_debit) filter (where kind = 'pocket'), 0)::bigint as "inEnvelopes",
      case when balance_class = 'credit' then coalesce(
        sum((select sum(l.free) from lot l where l.account_id = account.id)), 0)::bigint end as "inLots"
    from account
    where project_id = ${scope.projectId} and kind in ('wallet', 'pocket') and (kind = 'wallet' or gate <> 'closed')
    group by balance_class, currency order by balance_class desc, currency`.execute(db)
  return rows
}

export async function debtsOf(db: Kysely<Database>, scope: Scope): Promise<readonly Debt[]> {
  const { rows } = await sql<Debt>`
    select currency, debt as amount
    from (
      select a.currency, project_debt(a.project_id, a.currency) as debt from account a
      where a.project_id = ${scope.projectId} and a.kind = 'overage'
    ) as owed
    where debt > 0 order by currency`.execute(db)
  return rows
}

export interface Deposit {
  readonly id: string
  readonly walletId: string
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly amount: bigint
  readonly reference: string
  /** The lot that credit became. */
  readonly lotId: string | null
  /** What of it went to a debt, in the same transaction. */
  readonly debtPaid: bigint
  readonly recordedAt: Date
}

export async function getDeposit(db: Kysely<Database>, scope: Scope, transferId: string): Promise<Deposit> {
  const deposit = await findDeposit(db, scope, transferId)
  if (!deposit) throw new Error('the deposit that was just booked is not there')
  return deposit
}

/** Undefined also for a movement that is no deposit. */
export async function findDeposit(
  db: Kysely<Database>,
  scope: Scope,
  transferId: string,
): Promise<Deposit | undefined> {
  const { rows } = await sql<Deposit>`
    ${deposits} where t.project_id = ${scope.projectId} and t.id = ${transferId} and t.code = 'deposit'`.execute(db)
  return rows[0]
}

export interface DepositFilter {
  readonly balanceClass?: BalanceClass | undefined
  readonly from?: string | undefined
  readonly to?: string | undefined
}

/** In the order of their bookings; a place is the `seq`. */
export async function listDeposits(
  db: Kysely<Database>,
  scope: Scope,
  { filter, page }: { readonly filter: DepositFilter; readonly page: Page },
): Promise<readonly (Deposit & { readonly seq: string })[]> {
  const { balanceClass = null, from = null, to = null } = filter
  const { follows, order } = pageBy(sql`t.seq`, page)
  const { rows } = await sql<Deposit & { readonly seq: string }>`
    ${deposits} where t.project_id = ${scope.projectId} and t.code = 'deposit' and ${follows}
      and (${balanceClass}::text is null or a.balance_class = ${balanceClass})
      and (${from}::timestamptz is null or t.recorded_at >= ${from}::timestamptz)
      and (${to}::timestamptz is null or t.recorded_at < ${to}::timestamptz)
    order by ${order} limit ${page.limit}`.execute(db)
  return rows
}

const deposits = sql`
  select t.id, t.seq::text as seq, a.wallet_id as "walletId", a.balance_class as "balanceClass", t.currency, t.amount,
    t.reference, t.recorded_at as "recordedAt", t.lot_id as "lotId",
    coalesce((select sum(p.amount) from transfer p where p.project_id = t.project_id and p.currency = t.currency
      and p.code = 'debt_payment' and p.xid = t.xid), 0)::bigint as "debtPaid"
  from transfer t join account a on a.id = t.credit_account`

/** Whether a deposit with this reference stands in the journal. */
export async function isBooked(db: Kysely<Database>, scope: Scope, reference: string): Promise<boolean> {
  const row = await db
    .selectFrom('transfer')
    .select('id')
    .where('project_id', '=', scope.projectId)
    .where('reference', '=', reference)
    .where('code', '=', 'deposit')
    .executeTakeFirst()
  return row !== undefined
}

/** The tenant of a wallet, for a payment that names nothing else. */
export async function tenantOfWallet(db: Kysely<Database>, walletId: string): Promise<Scope | undefined> {
  const row = await db.selectFrom('wallet').select('project_id').where('id', '=', walletId).executeTakeFirst()
  return row && { projectId: row.project_id }
}
