import type { Page } from '#contracts/api-page.ts'
import type { BalanceClass } from '#contracts/names.ts'
import { sql, type Kysely, type Selectable, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { newId } from './ids.ts'
import { json } from './json.ts'
import type { DepositRequest } from './ledger.ts'
import type { Database } from './schema.ts'
import { pageBy } from './page.ts'

/** A deposit that waits for another operator, or did. */
export interface RequestedDeposit {
  readonly id: string
  readonly projectId: string
  readonly walletId: string
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly amount: bigint
  readonly reference: string
  readonly lot: unknown
  /** Null: a payment provider. */
  readonly askedBy: string | null
  readonly reason: 'amount' | 'day'
  readonly state: 'waiting' | 'approved' | 'refused'
  readonly decidedBy: string | null
  readonly decidedAt: Date | null
  readonly depositId: string | null
  readonly createdAt: Date
}

/** Asks for a deposit. The same again is the same request, and not new; undefined when its reference stands for another one. */
export async function requestDeposit(
  trx: Transaction<Database>,
  scope: Scope,
  asking: {
    readonly deposit: DepositRequest
    readonly askedBy: string | null
    readonly reason: RequestedDeposit['reason']
    readonly nowMs: number
  },
): Promise<{ readonly request: RequestedDeposit; readonly isNew: boolean } | undefined> {
  const { deposit, askedBy, reason, nowMs } = asking
  const { walletId, balanceClass, currency, amount, reference, lot } = deposit
  const made = await trx
    .insertInto('deposit_request')
    .values({
      id: newId(nowMs),
      project_id: scope.projectId,
      wallet_id: walletId,
      balance_class: balanceClass,
      currency,
      amount,
      reference,
      lot: lot ? json(lot) : null,
      asked_by: askedBy,
      reason,
      decided_by: null,
      decided_at: null,
      transfer_id: null,
    })
    .onConflict((conflict) => conflict.columns(['project_id', 'reference']).doNothing())
    .returning('id')
    .executeTakeFirst()
  const row = await trx
    .selectFrom('deposit_request')
    .selectAll()
    .where('project_id', '=', scope.projectId)
    .where('reference', '=', reference)
    .where('wallet_id', '=', walletId)
    .where('balance_class', '=', balanceClass)
    .where('currency', '=', currency)
    .where('amount', '=', amount)
    .where(sql<boolean>`lot is not distinct from ${lot ? json(lot) : null}::jsonb`)
    .executeTakeFirst()
  return row && { request: requestedOf(row), isNew: made !== undefined }
}

/** Why a deposit waits or waited, by its reference; undefined when it never did. */
export async function waitingReason(
  db: Kysely<Database>,
  scope: Scope,
  reference: string,
): Promise<RequestedDeposit['reason'] | undefined> {
  const row = await db
    .selectFrom('deposit_request')
    .select('reason')
    .where('project_id', '=', scope.projectId)
    .where('reference', '=', reference)
    .executeTakeFirst()
  return row?.reason
}

export async function getRequest(db: Kysely<Database>, scope: Scope, id: string): Promise<RequestedDeposit> {
  const row = await db
    .selectFrom('deposit_request')
    .selectAll()
    .where('project_id', '=', scope.projectId)
    .where('id', '=', id)
    .executeTakeFirstOrThrow()
  return requestedOf(row)
}

/** Locked, so that it is decided once. */
export async function lockRequest(trx: Transaction<Database>, scope: Scope, id: string): Promise<RequestedDeposit> {
  const row = await trx
    .selectFrom('deposit_request')
    .selectAll()
    .where('project_id', '=', scope.projectId)
    .where('id', '=', id)
    .forNoKeyUpdate()
    .executeTakeFirstOrThrow()
  return requestedOf(row)
}

export async function decideRequest(
  trx: Transaction<Database>,
  scope: Scope,
  decision: { readonly id: string; readonly decidedBy: string; readonly depositId: string | null },
): Promise<RequestedDeposit> {
  const row = await trx
    .updateTable('deposit_request')
    .set({
      state: decision.depositId === null ? 'refused' : 'approved',
      decided_by: decision.decidedBy,
      decided_at: sql<Date>`clock_timestamp()`,
      transfer_id: decision.depositId,
    })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', decision.id)
    .returningAll()
    .executeTakeFirstOrThrow()
  return requestedOf(row)
}

/** Whether a key may decide on it: see `may_decide`. */
export async function mayDecide(
  trx: Transaction<Database>,
  { askedBy, createdAt }: RequestedDeposit,
  keyId: string,
): Promise<boolean> {
  const { rows } = await sql<{ may: boolean }>`
    select may_decide(${askedBy}::uuid, ${keyId}::uuid, ${createdAt}::timestamptz) as may`.execute(trx)
  return rows[0]?.may === true
}

/** Of an organisation; a place is an id. */
export async function listRequests(
  db: Kysely<Database>,
  organisationId: string,
  page: Page & {
    readonly projectId: string | undefined
    readonly state: RequestedDeposit['state'] | undefined
  },
): Promise<readonly RequestedDeposit[]> {
  const { projectId, state } = page
  const rows = await db
    .selectFrom('deposit_request')
    .innerJoin('project', 'project.id', 'deposit_request.project_id')
    .selectAll('deposit_request')
    .where('project.organisation_id', '=', organisationId)
    .where(pageBy(sql.ref('deposit_request.id'), page).follows)
    .$if(projectId !== undefined, (query) => query.where('project_id', '=', projectId ?? ''))
    .$if(state !== undefined, (query) => query.where('state', '=', state ?? 'waiting'))
    .orderBy('deposit_request.id', page.order)
    .limit(page.limit)
    .execute()
  return rows.map(requestedOf)
}

function requestedOf(row: Selectable<Database['deposit_request']>): RequestedDeposit {
  return {
    id: row.id,
    projectId: row.project_id,
    walletId: row.wallet_id,
    balanceClass: row.balance_class,
    currency: row.currency,
    amount: row.amount,
    reference: row.reference,
    lot: row.lot,
    askedBy: row.asked_by,
    reason: row.reason,
    state: row.state,
    decidedBy: row.decided_by,
    decidedAt: row.decided_at,
    depositId: row.transfer_id,
    createdAt: row.created_at,
  }
}
