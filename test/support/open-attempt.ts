import { executeCall } from '#calls/execute.ts'
import { ledgerId } from '#calls/charge.ts'
import { openAttempts } from '#db/call.ts'
import type { SettleItem } from '#db/hold.ts'
import { verifyLedger } from '#db/verify.ts'
import { expect } from 'vitest'
import { pollUntil } from './poll.ts'
import { requestsSeen, type TestRun, type World } from './world.ts'

export const QUESTION =
  '<passage id="p1">The mill of Orvane burnt down in 1711.</passage> When did the mill of Orvane burn down?'

export async function expectVerified(world: Pick<World, 'db'>) {
  const { checks } = await verifyLedger(world.db)
  expect(checks.filter((check) => !check.ok)).toEqual([])
}

export async function directPocket(world: World, run: TestRun) {
  return world.db
    .selectFrom('account')
    .selectAll()
    .where('envelope_id', '=', run.envelopeId)
    .where('balance_class', '=', 'direct')
    .executeTakeFirstOrThrow()
}

/** A run with one attempt that is held, marked sent, and open at the provider. */
export async function withOpenAttempt(world: World, funded = 1_000_000_000n) {
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: funded })
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { hang: true })
  const controller = new AbortController()
  const call = executeCall(engine, run.request('one', QUESTION, { signal: controller.signal }))
  await pollUntil(async () => (await requestsSeen(world.sandbox)).length === 1, { what: 'the request' })
  const [attempt] = await openAttempts(world.db, world.scope, run.runId)
  if (!attempt) throw new Error('no attempt is open')
  const pocket = { projectId: world.scope.projectId, accountId: attempt.accountId }
  return { engine, run, call, controller, attempt, pocket }
}

export function resolution(
  attempt: { runId: string | null; callId: string; number: number; holdId: string },
  amount: bigint | null,
): SettleItem {
  const key = { runId: attempt.runId, callId: attempt.callId, number: attempt.number }
  return {
    holdId: attempt.holdId,
    callId: attempt.callId,
    attempt: attempt.number,
    resolutionId: ledgerId(key, 'resolution'),
    overageId: ledgerId(key, 'overage'),
    debtId: ledgerId(key, 'debt'),
    amount,
    tokens: null,
    certainty: amount === null ? null : 'estimated',
    outcome: 'aborted',
    detail: null,
    usage: null,
    answerId: null,
    answer: null,
  }
}
