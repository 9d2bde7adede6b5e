import { openAttempts, type OpenAttempt } from '#db/call.ts'
import type { Scope } from '#db/database.ts'
import { settle, type SettleVerdict } from '#db/hold.ts'
import { attemptsOf } from '#db/orphan.ts'
import { lostSettlementOf } from './charge.ts'
import type { Engine } from './engine.ts'

type Lost = Pick<
  OpenAttempt,
  'callId' | 'number' | 'runId' | 'accountId' | 'held' | 'instanceId' | 'owner' | 'ownerAlive'
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
  const item = lostSettlementOf(
    { runId: attempt.runId, callId: attempt.callId, number: attempt.number },
    attempt.held,
    {
      message: 'the answer died with its process',
      owner: attempt.owner,
      instance: attempt.instanceId,
      resolvedBy: engine.instance.id,
    },
  )
  const pocket = { projectId: scope.projectId, accountId: attempt.accountId }
  if (attempt.instanceId === engine.instance.id) return (await engine.queue.settle(pocket, item)).verdict
  const [answer] = await settle(engine.db, pocket, { items: [item], mode: 'take_over' })
  return answer?.verdict ?? 'unknown_hold'
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

/** Resolves what this process was granted and no executor of it holds any more: left behind by a failure half-way. */
export async function sweepOrphans(engine: Engine): Promise<void> {
  for (const attempt of await attemptsOf(engine.db, engine.instance.id)) {
    if (isAbandoned(engine, attempt)) await takeOver(engine, { projectId: attempt.projectId }, attempt)
  }
}
