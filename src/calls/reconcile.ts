import type { Scope } from '#db/database.ts'
import { correct, settle } from '#db/hold.ts'
import { attemptsOfTheDead, lostAttempt } from '#db/orphan.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'
import { ledgerId, voidedSettlementOf } from './charge.ts'
import type { LostCostPolicy } from './lost-cost.ts'
import { lostSettlement } from './lost.ts'

/** An attempt that was resolved because its process is dead. Amounts in nano. */
export interface Reconciled {
  readonly runId: string
  readonly callId: string
  readonly attempt: number
  readonly currency: string
  readonly held: bigint
  readonly charged: bigint
  readonly certainty: 'unknown' | 'estimated' | 'billed' | null
}

/**
 * Resolves what dead processes of one organisation left open, as every process does by itself: for those who do not want
 * to wait. A living owner is never overtaken, and of many reconcilers at once one resolves.
 */
export async function reconcile(
  db: Kysely<Database>,
  request: { readonly organisationId: string; readonly policy: LostCostPolicy; readonly by: string },
): Promise<readonly Reconciled[]> {
  const resolved: Reconciled[] = []
  for (const attempt of await attemptsOfTheDead(db, request.organisationId)) {
    const scope = { projectId: attempt.projectId }
    const evidence = { owner: attempt.owner, instance: attempt.instanceId, resolvedBy: request.by }
    const item = await lostSettlement(db, scope, { attempt, policy: request.policy, evidence })
    const { verdict } = await settle(db, { ...scope, accountId: attempt.accountId }, { item, mode: 'take_over' })
    if (verdict !== 'settled') continue
    const { runId, callId, number, currency, held } = attempt
    const { amount, certainty } = item
    resolved.push({ runId, callId, attempt: number, currency, held, charged: amount ?? 0n, certainty })
  }
  return resolved
}

export type VoidVerdict = 'voided' | 'replayed' | 'owner_alive' | 'not_lost' | 'unknown'

/**
 * Takes a lost attempt's cost back to zero, because a person knows that the provider did not bill it. What it was booked
 * at stays in the journal, with a correction beside it and the reason in the attempt's evidence.
 */
export async function voidLost(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly callId: string; readonly number: number; readonly by: string; readonly reason: string },
): Promise<VoidVerdict> {
  const { callId, number, by, reason } = request
  let attempt = await lostAttempt(db, scope, { callId, number })
  if (!attempt) return 'unknown'
  const pocket = { ...scope, accountId: attempt.accountId }
  const key = { runId: attempt.runId, callId, number }
  const evidence = { voidedBy: by, voidedBecause: reason }
  if (attempt.state === 'sent') {
    const item = voidedSettlementOf(key, evidence)
    const { verdict } = await settle(db, pocket, { item, mode: 'take_over' })
    if (verdict === 'owner_alive') return 'owner_alive'
    if (verdict === 'settled') return 'voided'
    // Somebody else resolved it at the same moment: now it is looked at as they left it.
    attempt = await lostAttempt(db, scope, { callId, number })
  }
  if (attempt?.outcome !== 'lost' || attempt.isBilled) return 'not_lost'
  if (attempt.isVoid) return 'replayed'
  const verdict = await correct(db, pocket, {
    holdId: attempt.holdId,
    correctionId: ledgerId(key, 'void'),
    debtId: ledgerId(key, 'debt'),
    amount: 0n,
    tokens: 0n,
    certainty: 'estimated',
    usage: null,
    detail: evidence,
    answerId: null,
    answer: null,
  })
  return verdict === 'corrected' ? 'voided' : verdict === 'replayed' ? 'replayed' : 'not_lost'
}
