import { openAttempts } from '#db/call.ts'
import type { Scope } from '#db/database.ts'
import { correct, type Correction } from '#db/correction.ts'
import { settle } from '#db/hold.ts'
import { attemptsOfTheDead, namedAttempt, type Orphan } from '#db/orphan.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'
import { ledgerId, voidedSettlementOf } from './charge.ts'
import type { LostCostPolicy } from './lost-cost.ts'
import { failureOf, lostSettlement } from './lost.ts'

/** An attempt that was resolved because its process is dead. Amounts in nano. */
export interface Reconciled {
  /** Null for a call of a standing envelope. */
  readonly runId: string | null
  readonly callId: string
  readonly attempt: number
  readonly currency: string
  readonly held: bigint
  readonly charged: bigint
  readonly certainty: 'unknown' | 'estimated' | 'billed' | null
}

/** An attempt that stays open, and why. */
export interface Unresolved extends Pick<Reconciled, 'runId' | 'callId' | 'attempt'> {
  readonly message: string
}

interface Request {
  readonly organisationId: string
  readonly policy: LostCostPolicy
  readonly by: string
}

/**
 * Resolves all that dead processes of one organisation left open, as every process does by itself: for those who do not
 * want to wait. A living owner is never overtaken, and of many reconcilers at once one resolves. An attempt that cannot be
 * resolved is told, and does not keep the others from it.
 */
export async function reconcile(
  db: Kysely<Database>,
  request: Request,
): Promise<{ readonly resolved: readonly Reconciled[]; readonly unresolved: readonly Unresolved[] }> {
  const resolved: Reconciled[] = []
  const unresolved: Unresolved[] = []
  for await (const page of attemptsOfTheDead(db, request.organisationId)) {
    for (const attempt of page) {
      const { runId, callId, number } = attempt
      const resolving = resolveOne(db, attempt, request).then((done) => resolved.push(...done))
      const failure = await failureOf(db, resolving)
      if (failure) unresolved.push({ runId, callId, attempt: number, message: failure.message })
    }
  }
  return { resolved, unresolved }
}

/** Nothing when somebody else was faster. */
async function resolveOne(db: Kysely<Database>, attempt: Orphan, request: Request): Promise<readonly Reconciled[]> {
  const scope = { projectId: attempt.projectId }
  const evidence = { owner: attempt.owner, instance: attempt.instanceId, resolvedBy: request.by }
  const item = await lostSettlement(db, scope, { attempt, policy: request.policy, evidence })
  const { verdict } = await settle(db, { ...scope, accountId: attempt.accountId }, { item, mode: 'take_over' })
  if (verdict !== 'settled') return []
  const { runId, callId, number, currency, held } = attempt
  const { amount, certainty } = item
  return [{ runId, callId, attempt: number, currency, held, charged: amount ?? 0n, certainty }]
}

/** Resolves what dead processes left open of one run. */
export async function resolveDeadOf(
  db: Kysely<Database>,
  scope: Scope,
  { runId, policy, by }: { readonly runId: string; readonly policy: LostCostPolicy; readonly by: string },
): Promise<void> {
  for (const attempt of await openAttempts(db, scope, runId)) {
    if (attempt.ownerAlive) continue
    const evidence = { owner: attempt.owner, instance: attempt.instanceId, resolvedBy: by }
    const item = await lostSettlement(db, scope, { attempt, policy, evidence })
    await settle(db, { ...scope, accountId: attempt.accountId }, { item, mode: 'take_over' })
  }
}

export type VoidVerdict = 'voided' | 'replayed' | 'owner_alive' | 'not_lost' | 'unknown'

/** Somebody else may resolve the attempt between the two looks at it, once. */
const LOOKS = 2

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
  const attempt = await namedAttempt(db, scope, { callId, number })
  if (!attempt) return 'unknown'
  const pocket = { ...scope, accountId: attempt.accountId }
  const key = { runId: attempt.runId, callId, number }
  const detail = { voidedBy: by, voidedBecause: reason }
  const item = voidedSettlementOf({ ...key, holdId: attempt.holdId }, detail)
  const correction: Correction = {
    ...item,
    correctionId: ledgerId(key, 'void'),
    debtId: ledgerId(key, 'void_debt'),
    amount: 0n,
    tokens: 0n,
    certainty: 'estimated',
    voids: true,
  }
  for (let look = 1; ; look += 1) {
    // First, though a hold that is still open cannot be corrected: it locks the wallet, and that comes before the pocket.
    const verdict = await correct(db, pocket, correction)
    if (verdict === 'corrected') return 'voided'
    if (verdict === 'replayed') return 'replayed'
    if (verdict !== 'unresolved' || look > LOOKS) return 'not_lost'
    const settled = await settle(db, pocket, { item, mode: 'take_over' })
    if (settled.verdict === 'settled') return 'voided'
    if (settled.verdict === 'replayed' || settled.verdict === 'owner_alive') return settled.verdict
  }
}
