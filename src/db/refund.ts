import type { BalanceClass } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

export interface RefundRequest {
  readonly id: string
  readonly walletId: string
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly amount: bigint
  /** Unique within the project's refunds: the payment's own number. */
  readonly reference: string
}

export interface RefundVerdict {
  readonly verdict:
    | 'refunded'
    | 'replayed'
    | 'reference_mismatch'
    | 'unknown_wallet'
    | 'invalid_amount'
    | 'invalid_reference'
    | 'not_refundable'
    | 'wrong_currency'
    | 'debt_outstanding'
    | 'wallet_short'
  readonly transferId: string | null
  /** What the wallet has of it afterwards, in nano. */
  readonly free: bigint
}

export interface Refund {
  readonly id: string
  readonly walletId: string
  readonly currency: string
  readonly amount: bigint
  readonly reference: string
  readonly recordedAt: Date
}

export async function getRefund(db: Kysely<Database>, scope: Scope, transferId: string): Promise<Refund> {
  const { rows } = await sql<Refund>`
    select t.id, a.wallet_id as "walletId", t.currency, t.amount, t.reference, t.recorded_at as "recordedAt"
    from transfer t join account a on a.id = t.debit_account
    where t.project_id = ${scope.projectId} and t.id = ${transferId} and t.code = 'refund'`.execute(db)
  const [row] = rows
  if (!row) throw new Error('the refund that was just booked is not there')
  return row
}

/** Pays direct money back: wallet → outside. Operators only: the caller has checked that. */
export async function refund(db: Kysely<Database>, scope: Scope, request: RefundRequest): Promise<RefundVerdict> {
  const { rows } = await sql<RefundVerdict>`
    select verdict, transfer_id as "transferId", free
    from refund(${scope.projectId}, ${request.walletId}, ${request.id}, ${request.balanceClass}, ${request.currency},
      ${request.amount}, ${request.reference})`.execute(db)
  const [row] = rows
  if (!row) throw new Error('refund returned no row')
  return row
}
