import { openAttempts, type OpenAttempt } from '#db/call.ts'
import type { Scope } from '#db/database.ts'
import { isReachable } from '#db/database-health.ts'
import { settle, type SettleItem, type SettleVerdict } from '#db/hold.ts'
import { plannedCostOf } from '#db/lost-cost.ts'
import { attemptsOfMeAndTheDead } from '#db/orphan.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'
import { lostSettlementOf, unsentSettlementOf } from './charge.ts'
import type { Engine } from './engine.ts'
import { lostCostOf, type LostCostPolicy } from './lost-cost.ts'

type Lost = Pick<
  OpenAttempt,
  'callId' | 'number' | 'runId' | 'accountId' | 'holdId' | 'held' | 'instanceId' | 'owner' | 'ownerAlive' | 'requestId'
>

/** Whether nobody works on an attempt any more: its process is dead, or it is ours and no executor of ours has it. */
export function isAbandoned(engine: Engine, attempt: Lost): boolean {
  if (attempt.instanceId === engine.instance.id) return !engine.instance.owners.has(attempt.owner)
  return !attempt.ownerAlive
}

/**
 * Resolves an abandoned attempt: its answer died with its process, so its whole hold is booked as unknown. One guarded
 * write: of many who find it, one resolves it, and a living owner is never overtaken.
 */
export async function takeOver(engine: Engine, scope: Scope, attempt: Lost): Promise<SettleVerdict> {
  const evidence = { owner: attempt.owner, instance: attempt.instanceId, resolvedBy: engine.instance.id }
  const item = engine.instance.unsent.has(attempt.owner)
    ? unsentSettlementOf(attempt, { ...evidence, message: 'granted while the database was away, and not sent' })
    : await lostSettlement(engine.db, scope, { attempt, policy: engine.lostCost, evidence })
  const pocket = { projectId: scope.projectId, accountId: attempt.accountId }
  if (attempt.instanceId === engine.instance.id) return (await engine.queue.settle(pocket, item)).verdict
  return (await settle(engine.db, pocket, { item, mode: 'take_over' })).verdict
}

/** What is booked for an attempt whose process died, and why. */
export async function lostSettlement(
  db: Kysely<Database>,
  scope: Scope,
  lost: {
    readonly attempt: Pick<OpenAttempt, 'callId' | 'number' | 'runId' | 'holdId' | 'held' | 'requestId'>
    readonly policy: LostCostPolicy
    readonly evidence: Readonly<Record<string, unknown>>
  },
): Promise<SettleItem> {
  const { callId, number, held, requestId } = lost.attempt
  const charge = await lostCostOf(db, scope, { callId, number, held, policy: lost.policy })
  const cost = await plannedCostOf(db, scope, { callId, number })
  const asked = requestId === null ? {} : { providerRequestId: requestId }
  const evidence = { ...lost.evidence, ...asked, message: 'the answer died with its process' }
  return lostSettlementOf(lost.attempt, { ...charge, cost }, evidence)
}

/** Resolves every abandoned attempt of a run. Returns how many attempts are still being worked on. */
export async function resolveAbandoned(engine: Engine, scope: Scope, runId: string): Promise<number> {
  const open = await openAttempts(engine.db, scope, runId)
  let alive = 0
  for (const attempt of open) {
    if (!isAbandoned(engine, attempt)) alive += 1
    else if ((await takeOver(engine, scope, attempt)) === 'owner_alive') alive += 1
  }
  return alive
}

/**
 * Resolves what is abandoned, of any tenant: left behind by a failure half-way in this process, or by a dead one. One that
 * cannot be resolved does not keep the others from it.
 *
 * @throws AggregateError of all that could not be resolved
 */
export async function sweepOrphans(engine: Engine): Promise<void> {
  const failures: Error[] = []
  for await (const page of attemptsOfMeAndTheDead(engine.db, engine.instance.id)) {
    for (const attempt of page.filter((each) => isAbandoned(engine, each))) {
      const failure = await failureOf(engine.db, takeOver(engine, { projectId: attempt.projectId }, attempt))
      if (failure) failures.push(new Error(`attempt ${attempt.callId}:${attempt.number}`, { cause: failure }))
    }
  }
  if (failures.length > 0) throw new AggregateError(failures, 'abandoned attempts that cannot be resolved')
}

/** Why one of many attempts failed. That the database is away is no attempt's own failure: then this throws. */
export async function failureOf(db: Kysely<Database>, work: Promise<unknown>): Promise<Error | undefined> {
  try {
    await work
    return undefined
  } catch (error) {
    await isReachable(db)
    return error instanceof Error ? error : new Error(String(error))
  }
}
