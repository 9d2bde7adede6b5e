import type { Page } from '#contracts/api-page.ts'
import type { TransferView } from '#contracts/api-run.ts'
import type { BalanceClass, Certainty, TransferCode, Use } from '#contracts/names.ts'
import { toAmount } from '#domain/money.ts'
import { sql, type Kysely, type RawBuilder } from 'kysely'
import { transfersOfCalls } from './call-journal.ts'
import type { Scope } from './database.ts'
import { pageBy } from './page.ts'
import type { Database } from './schema.ts'

interface Row {
  readonly id: string
  readonly seq: bigint
  readonly code: TransferCode
  readonly recordedAt: Date
  readonly debitId: string
  readonly debitKind: string
  readonly debitClass: BalanceClass | null
  readonly creditId: string
  readonly creditKind: string
  readonly creditClass: BalanceClass | null
  readonly currency: string
  readonly amount: bigint
  readonly released: bigint
  readonly pendingId: string | null
  readonly callId: string | null
  readonly attempt: number | null
  readonly certainty: Certainty | null
  readonly use: Use | null
  readonly lotId: string | null
  readonly quoteId: string | null
  readonly balanceAfter: bigint | null
  readonly heldAfter: bigint | null
}

export interface MovementFilter {
  readonly code?: TransferCode | undefined
  readonly from?: string | undefined
  readonly to?: string | undefined
}

/** A movement with its place. */
export interface Movement {
  readonly seq: string
  readonly transfer: TransferView
}

/**
 * A run's movements, in the order in which each account was changed (`seq` is taken under the account's lock). Complete
 * for a run that is over; while it works, a page may miss a movement that is being written.
 */
export async function readLedger(
  db: Kysely<Database>,
  scope: Scope,
  { runId, page }: { readonly runId: string; readonly page: Page },
): Promise<readonly Movement[]> {
  const { follows, order } = pageBy(sql`t.seq`, page)
  const moved = sql`
    select t.* from transfer t
    where t.envelope_id in (select e.id from envelope e where e.run_id = ${runId})
      and t.project_id = ${scope.projectId} and ${follows}`
  return placed(await readMovements(db, moved, { limit: page.limit, order }))
}

/** The most that a call has: some for each of its attempts. */
const MOST_OF_CALL = 10_000

/** A call's movements, in order, whichever envelope it is of. */
export async function readCallLedger(
  db: Kysely<Database>,
  scope: Scope,
  callId: string,
): Promise<readonly TransferView[]> {
  const rows = await readMovements(db, transfersOfCalls(scope, [callId]), { limit: MOST_OF_CALL })
  return rows.map(viewOf)
}

/** Movements that no wallet has: those of the hot path, which have no index by account. */
const OF_POCKETS = sql`('hold', 'capture', 'void', 'expire', 'overage', 'carve')`

/**
 * The movements of a wallet's account, or of a pocket, in order; each tells what there was of it right after. Undefined for a
 * counterparty: its movements are those of all others.
 */
export async function readAccountLedger(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly accountId: string; readonly filter: MovementFilter; readonly page: Page },
): Promise<readonly Movement[] | undefined> {
  const { accountId, filter, page } = request
  const account = await db
    .selectFrom('account')
    .select(['kind', 'envelope_id'])
    .where('project_id', '=', scope.projectId)
    .where('id', '=', accountId)
    .executeTakeFirst()
  if (account?.kind !== 'wallet' && account?.kind !== 'pocket') return undefined
  const { follows, order } = pageBy(sql`t.seq`, page)
  const chosen = sql`${follows} and t.project_id = ${scope.projectId}
    and (${filter.code ?? null}::text is null or t.code = ${filter.code ?? null})
    and (${filter.from ?? null}::timestamptz is null or t.recorded_at >= ${filter.from ?? null}::timestamptz)
    and (${filter.to ?? null}::timestamptz is null or t.recorded_at < ${filter.to ?? null}::timestamptz)`
  const side = (column: RawBuilder<unknown>) => sql`
    (select t.* from transfer t where ${column} = ${accountId} and t.code not in ${OF_POCKETS} and ${chosen}
      order by ${order} limit ${page.limit})`
  const moved =
    account.kind === 'wallet'
      ? sql`${side(sql`t.debit_account`)} union all ${side(sql`t.credit_account`)}`
      : sql`select t.* from transfer t where t.envelope_id = ${account.envelope_id}
          and ${accountId} in (t.debit_account, t.credit_account) and ${chosen}`
  const rows = await readMovements(db, moved, { limit: page.limit, order, accountId })
  return placed(rows)
}

function placed(rows: readonly Row[]): readonly Movement[] {
  return rows.map((row) => ({ seq: row.seq.toString(), transfer: viewOf(row) }))
}

interface Reading {
  readonly limit: number
  /** Left out: in order. */
  readonly order?: RawBuilder<unknown>
  /** Whose balance is told; left out: that of the pocket. */
  readonly accountId?: string
}

async function readMovements(
  db: Kysely<Database>,
  moved: RawBuilder<unknown>,
  { limit, order = sql`t.seq`, accountId }: Reading,
): Promise<readonly Row[]> {
  const isOurs = (side: 'd' | 'c') =>
    accountId === undefined ? sql`${sql.ref(side)}.kind = 'pocket'` : sql`${sql.ref(side)}.id = ${accountId}`
  const { rows } = await sql<Row>`
    select t.id, t.seq, t.code, t.recorded_at as "recordedAt", t.currency, t.amount, t.released,
      t.pending_id as "pendingId", t.call_id as "callId", t.attempt, t.certainty, t.use, t.lot_id as "lotId",
      t.quote_id as "quoteId",
      d.id as "debitId", d.kind as "debitKind", d.balance_class as "debitClass",
      c.id as "creditId", c.kind as "creditKind", c.balance_class as "creditClass",
      case when ${isOurs('d')} then t.debit_balance when ${isOurs('c')} then t.credit_balance end as "balanceAfter",
      case when ${isOurs('d')} then t.debit_held when ${isOurs('c')} then t.credit_held end as "heldAfter"
    from (${moved}) t
    join account d on d.id = t.debit_account
    join account c on c.id = t.credit_account
    order by ${order} limit ${limit}`.execute(db)
  return rows
}

function viewOf(row: Row): TransferView {
  const money = (nano: bigint) => toAmount(nano, row.currency)
  return {
    id: row.id,
    code: row.code,
    recordedAt: row.recordedAt.toISOString(),
    debit: { id: row.debitId, kind: row.debitKind, balanceClass: row.debitClass },
    credit: { id: row.creditId, kind: row.creditKind, balanceClass: row.creditClass },
    amount: money(row.amount),
    released: money(row.released),
    resolves: row.pendingId,
    callId: row.callId,
    attempt: row.attempt,
    certainty: row.certainty,
    use: row.use,
    lotId: row.lotId,
    quoteId: row.quoteId,
    balanceAfter: row.balanceAfter === null ? null : money(row.balanceAfter),
    heldAfter: row.heldAfter === null ? null : money(row.heldAfter),
  }
}
