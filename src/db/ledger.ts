import type { BalanceClass, Gate } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'

/** One pocket's money on its way from the wallet into an envelope. `id` is the transfer's. */
export interface Funding {
  readonly id: string
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly amount: bigint
}

/** Why nothing was moved. `asked` of `debt_outstanding` is the debt. */
export interface FundingRefusal {
  readonly reason: 'no_wallet' | 'unknown_envelope' | 'envelope_closed' | 'wallet_short' | 'debt_outstanding'
  readonly balanceClass: BalanceClass | null
  readonly currency: string | null
  readonly asked: bigint | null
  readonly free: bigint | null
}

export interface DepositRequest {
  readonly id: string
  readonly walletId: string
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly amount: bigint
  /** Unique within the project: the payment's own number, wherever it came from. */
  readonly reference: string
}

export interface DepositVerdict {
  readonly verdict: 'deposited' | 'replayed' | 'reference_mismatch' | 'unknown_wallet'
  readonly transferId: string | null
  /** What of it went to a debt from overages at once. */
  readonly debtPaid: bigint
}

/** outside → wallet. Operators only: the caller has checked that. */
export async function deposit(db: Kysely<Database>, scope: Scope, request: DepositRequest): Promise<DepositVerdict> {
  const { rows } = await sql<DepositVerdict>`
    select verdict, transfer_id as "transferId", debt_paid as "debtPaid"
    from deposit(${scope.projectId}, ${request.walletId}, ${request.id}, ${request.balanceClass}, ${request.currency},
      ${request.amount}, ${request.reference})`.execute(db)
  return single(rows)
}

/**
 * Opens an envelope and funds it from the project's wallet: all of it or nothing. Run it inside a transaction and roll
 * that back on a refusal: the function leaves an empty envelope behind.
 */
export async function openEnvelope(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly envelopeId: string; readonly runId: string; readonly fundings: readonly Funding[] },
): Promise<FundingRefusal | undefined> {
  const { rows } = await sql<FundingRefusal>`
    select reason, balance_class as "balanceClass", currency, asked, free
    from open_envelope(${scope.projectId}, ${request.envelopeId}, ${request.runId}, 'run',
      ${fundingJson(request.fundings)}::jsonb)`.execute(db)
  return rows[0]
}

/** wallet → envelope. Never needs budget and never opens the gate by itself. */
export async function topUpEnvelope(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly envelopeId: string; readonly fundings: readonly Funding[] },
): Promise<FundingRefusal | undefined> {
  const { rows } = await sql<FundingRefusal>`
    select reason, balance_class as "balanceClass", currency, asked, free
    from top_up_envelope(${scope.projectId}, ${request.envelopeId}, ${fundingJson(request.fundings)}::jsonb)`.execute(
    db,
  )
  return rows[0]
}

/** Sets an envelope's gate and answers the gate in force: `closing` and `closed` are never left again. */
export async function setGate(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly envelopeId: string; readonly gate: 'open' | 'frozen' | 'closing'; readonly reason: string },
): Promise<Gate | 'unknown'> {
  const { rows } = await sql<{ gate: Gate | 'unknown' }>`
    select set_gate(${scope.projectId}, ${request.envelopeId}, ${request.gate}, ${request.reason}) as gate`.execute(db)
  return single(rows).gate
}

/** Sends the remainder home and closes the envelope, unless a hold or a child is still open. */
export async function closeEnvelope(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly envelopeId: string; readonly reason: string },
): Promise<'closed' | 'open_holds' | 'open_children' | 'unknown'> {
  const { rows } = await sql<{ verdict: 'closed' | 'open_holds' | 'open_children' | 'unknown' }>`
    select close_envelope(${scope.projectId}, ${request.envelopeId}, ${request.reason}) as verdict`.execute(db)
  return single(rows).verdict
}

function fundingJson(fundings: readonly Funding[]): string {
  return json(
    fundings.map((funding) => ({
      id: funding.id,
      balance_class: funding.balanceClass,
      currency: funding.currency,
      amount: funding.amount,
    })),
  )
}

function single<Row>(rows: readonly Row[]): Row {
  const [row] = rows
  if (row === undefined) throw new Error('the function returned no row')
  return row
}
