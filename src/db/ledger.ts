import type { BalanceClass, Gate } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'

/** One pocket's money on its way from the wallet into an envelope. `id` is that of the first transfer into the pocket. */
export interface Funding {
  readonly id: string
  readonly balanceClass: BalanceClass
  /** What the wallet pays. */
  readonly currency: string
  readonly amount: bigint
  /** The pocket's currency when it is another one: what is paid is exchanged at the organisation's quote in force. */
  readonly exchangeTo?: string | undefined
}

/**
 * Why nothing was moved. `unknown_key` and `unknown_run`: they belong to another project. `standing_envelope`: its money is
 * fetched by its calls. `envelope_exists`: its id stands for another one, or for other fundings. `mismatch`: the fundings' ids
 * moved something else before. `asked` of `debt_outstanding` is the debt;
 * `currency` of `no_quote` is the one to be bought.
 */
export interface FundingRefusal {
  readonly reason:
    | 'no_wallet'
    | 'unknown_key'
    | 'unknown_run'
    | 'unknown_envelope'
    | 'envelope_closed'
    | 'envelope_exists'
    | 'not_root'
    | 'standing_envelope'
    | 'mismatch'
    | 'wallet_short'
    | 'debt_outstanding'
    | 'invalid_amount'
    | 'wrong_currency'
    | 'no_quote'
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
  /** Credit only: how it is drawn, and when it expires. */
  readonly lot?: LotTerms | undefined
}

/** Lots are drawn by priority (low first), then by expiry, then in the order they came. */
export interface LotTerms {
  readonly source: string
  readonly priority: number
  readonly expiresAt: Date | null
}

export interface DepositVerdict {
  readonly verdict:
    | 'deposited'
    | 'replayed'
    | 'reference_mismatch'
    | 'unknown_wallet'
    | 'invalid_amount'
    | 'invalid_reference'
    | 'wrong_currency'
    | 'wrong_lot'
    | 'lot_expired'
  readonly transferId: string | null
  /** What of it went to a debt from overages at once. */
  readonly debtPaid: bigint
}

/** outside → wallet. Operators only: the caller has checked that. */
export async function deposit(db: Kysely<Database>, scope: Scope, request: DepositRequest): Promise<DepositVerdict> {
  const { lot } = request
  const terms = lot && json({ source: lot.source, priority: lot.priority, expires_at: lot.expiresAt })
  const { rows } = await sql<DepositVerdict>`
    select verdict, transfer_id as "transferId", debt_paid as "debtPaid"
    from deposit(${scope.projectId}, ${request.walletId}, ${request.id}, ${request.balanceClass}, ${request.currency},
      ${request.amount}, ${request.reference}, ${terms ?? null}::jsonb)`.execute(db)
  return single(rows)
}

/**
 * Opens an envelope and funds it from the project's wallet: all of it or nothing. Run it inside a transaction and roll
 * that back on a refusal: for want of money the function leaves an empty envelope behind. Asked again it changes nothing.
 */
export async function openEnvelope(
  db: Kysely<Database>,
  scope: Scope,
  request: {
    readonly envelopeId: string
    readonly runId: string
    readonly apiKeyId: string
    readonly fundings: readonly Funding[]
  },
): Promise<FundingRefusal | undefined> {
  const { rows } = await sql<FundingRefusal>`
    select reason, balance_class as "balanceClass", currency, asked, free
    from open_envelope(${scope.projectId}, ${request.envelopeId}, ${request.runId}, ${request.apiKeyId}, 'run',
      ${fundingJson(request.fundings)}::jsonb)`.execute(db)
  return rows[0]
}

/** wallet → envelope. Never needs budget and never opens the gate by itself. Asked again it changes nothing. */
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

/** Sends the remainder home, or to the envelope's parent, and closes the envelope, unless a hold or a child is still open. */
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
      exchange_to: funding.exchangeTo,
    })),
  )
}

function single<Row>(rows: readonly Row[]): Row {
  const [row] = rows
  if (row === undefined) throw new Error('the function returned no row')
  return row
}
