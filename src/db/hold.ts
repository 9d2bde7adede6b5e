import type { Certainty, Gate } from '#contracts/names.ts'
import type { Outcome } from '#domain/policy.ts'
import { sql, type Kysely } from 'kysely'
import { json } from './json.ts'
import type { Database } from './schema.ts'

/** The pocket that pays, within its tenant. */
export interface PocketKey {
  readonly projectId: string
  readonly accountId: string
}

/** Everything that is written before a request may be sent: the plan, the hold, and that it is sent. */
export interface ReserveItem {
  readonly holdId: string
  readonly callId: string
  readonly attempt: number
  readonly runId: string
  readonly envelopeId: string
  /** Worst case in nano. */
  readonly amount: bigint
  /** The one executor that may send it. */
  readonly owner: string
  readonly plan: unknown
}

export type ReserveVerdict =
  | 'granted'
  | 'taken'
  | 'busy'
  | 'exhausted'
  | 'answered'
  | 'owner_dead'
  | 'unknown_pocket'
  | 'unknown_call'
  | 'invalid_amount'
  | Exclude<Gate, 'open'>

export interface ReserveAnswer {
  readonly holdId: string
  readonly verdict: ReserveVerdict
  /** True when the verdict was given before and is only repeated. */
  readonly replayed: boolean
  /** Free money of the pocket right after this item, in nano. */
  readonly free: bigint
}

/** Everything that is written when an attempt is over. */
export interface SettleItem {
  readonly holdId: string
  readonly resolutionId: string
  readonly overageId: string
  readonly debtId: string
  /** What it cost, in nano; null when nothing was used: the hold is voided. */
  readonly amount: bigint | null
  readonly certainty: Certainty | null
  readonly outcome: Outcome
  readonly detail: unknown
  readonly usage: unknown
  readonly answerId: string | null
  readonly answer: unknown
}

export type SettleVerdict = 'settled' | 'replayed' | 'already_resolved' | 'owner_alive' | 'mismatch' | 'unknown_hold'

export interface SettleAnswer {
  readonly holdId: string
  readonly verdict: SettleVerdict
}

/** Holds money for several attempts of one pocket in one commit, first in first out. One round trip. */
export async function reserve(
  db: Kysely<Database>,
  pocket: PocketKey,
  request: { readonly instanceId: string; readonly items: readonly ReserveItem[] },
): Promise<readonly ReserveAnswer[]> {
  const items = request.items.map((item) => ({
    hold_id: item.holdId,
    call_id: item.callId,
    attempt: item.attempt,
    run_id: item.runId,
    envelope_id: item.envelopeId,
    amount: item.amount,
    owner: item.owner,
    plan: item.plan,
  }))
  const { rows } = await sql<ReserveAnswer>`
    select hold_id as "holdId", verdict, replayed, free
    from reserve(${pocket.projectId}, ${pocket.accountId}, ${request.instanceId}, ${json(items)}::jsonb)`.execute(db)
  return rows
}

/** Resolves several attempts of one pocket in one commit. One round trip. */
export async function settle(
  db: Kysely<Database>,
  pocket: PocketKey,
  request: { readonly items: readonly SettleItem[]; readonly mode: 'owner' | 'take_over' },
): Promise<readonly SettleAnswer[]> {
  const items = request.items.map((item) => ({
    hold_id: item.holdId,
    resolution_id: item.resolutionId,
    overage_id: item.overageId,
    debt_id: item.debtId,
    amount: item.amount,
    certainty: item.certainty,
    outcome: item.outcome,
    detail: item.detail,
    usage: item.usage,
    answer_id: item.answerId,
    answer: item.answer,
  }))
  const { rows } = await sql<SettleAnswer>`
    select hold_id as "holdId", verdict
    from settle(${pocket.projectId}, ${pocket.accountId}, ${json(items)}::jsonb, ${request.mode === 'take_over'})`.execute(
    db,
  )
  return rows
}

/** The truth about an attempt that was already resolved by estimate. */
export interface Correction {
  readonly holdId: string
  readonly correctionId: string
  readonly debtId: string
  readonly amount: bigint
  readonly certainty: Certainty
  readonly usage: unknown
  readonly detail: unknown
  readonly answerId: string | null
  readonly answer: unknown
}

/** Books truth minus estimate, and stores the answer if the call has none yet. */
export async function correct(
  db: Kysely<Database>,
  pocket: PocketKey,
  item: Correction,
): Promise<'corrected' | 'replayed' | 'unresolved' | 'unknown_hold'> {
  const body = json({
    hold_id: item.holdId,
    correction_id: item.correctionId,
    debt_id: item.debtId,
    amount: item.amount,
    certainty: item.certainty,
    usage: item.usage,
    detail: item.detail,
    answer_id: item.answerId,
    answer: item.answer,
  })
  const { rows } = await sql<{ verdict: 'corrected' | 'replayed' | 'unresolved' | 'unknown_hold' }>`
    select correct(${pocket.projectId}, ${pocket.accountId}, ${body}::jsonb) as verdict`.execute(db)
  const [row] = rows
  if (!row) throw new Error('correct returned no row')
  return row.verdict
}
