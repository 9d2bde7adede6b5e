import { readReport } from '#db/report.ts'
import { verifyLedger } from '#db/verify.ts'
import { expect, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

const COUNT = 5

async function openedCalls({ db }: WorkflowWorld, runId: string): Promise<number> {
  return (await db.selectFrom('call').select('id').where('run_id', '=', runId).execute()).length
}

/** What the answers of a run's steps say, by path. */
async function answersOf({ db }: WorkflowWorld, runId: string): Promise<readonly unknown[]> {
  const rows = await db
    .selectFrom('call')
    .innerJoin('payload', 'payload.id', 'call.answer_id')
    .select(['call.path', 'payload.body'])
    .where('call.run_id', '=', runId)
    .orderBy('call.path')
    .execute()
  return rows.map(({ path, body }) => ({ path, body }))
}

/** What each step of a run may cost at worst and what it did cost, in nano. */
async function costsOf({ db }: WorkflowWorld, runId: string) {
  return db
    .selectFrom('attempt')
    .innerJoin('call', 'call.id', 'attempt.call_id')
    .innerJoin('transfer', 'transfer.pending_id', 'attempt.hold_id')
    .select(['call.path', 'attempt.held', 'transfer.amount'])
    .where('attempt.run_id', '=', runId)
    .orderBy('call.path')
    .execute()
}

function inUsd(nano: bigint): string {
  return `${nano / 1_000_000_000n}.${(nano % 1_000_000_000n).toString().padStart(9, '0')}`
}

test('a run whose money ends at any of its steps pauses there, is topped up, and ends as one whose money never ended', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const whole = await world.startAgent('steps', { count: COUNT })
  const uninterrupted = await world.until(whole, ['completed', 'failed'])
  const costs = await costsOf(world, whole)
  const expected = await answersOf(world, whole)
  expect(costs).toHaveLength(COUNT)
  const before = await world.providerAnswers()
  for (let step = 0; step < COUNT; step += 1) {
    const spent = costs.slice(0, step).reduce((sum, { amount }) => sum + amount, 0n)
    const held = costs[step]?.held ?? 0n
    const runId = await world.startAgent('steps', { count: COUNT }, { direct: inUsd(spent + held - 1n) })
    expect(await world.until(runId, ['paused', 'completed', 'failed'])).toMatchObject({ state: 'paused' })
    expect(await openedCalls(world, runId)).toBe(step + 1)
    await world.topUp(runId, '0.5')
    expect(await world.until(runId, ['completed', 'failed'])).toEqual(uninterrupted)
    expect(await answersOf(world, runId)).toEqual(expected)
    const report = await readReport(world.db, world.scope, runId)
    expect(report?.counts).toMatchObject({ calls: COUNT, attempts: COUNT, refusals: 1, retries: 0 })
    if (step === 2) await world.keepHistory(runId, 'exhausted-at-a-step')
  }
  const requests = [...(await world.providerAnswers())].filter(([key]) => !before.has(key))
  expect(requests.map(([, times]) => times)).toEqual(Array.from({ length: COUNT * COUNT }, () => 1))
  const { checks } = await verifyLedger(world.db)
  expect(checks.filter(({ ok }) => !ok)).toEqual([])
})

test('a top-up while no worker runs wakes the run when one does', async () => {
  const world = await createWorkflowWorld([])
  const worker = await world.startWorker()
  const runId = await world.startAgent('steps', { count: 12 }, { direct: '0.0002' })
  await world.until(runId, ['paused'])
  worker.shutdown()
  await worker.ended
  await world.topUp(runId, '0.5')
  await pollUntil(async () => (await world.getRun(runId)).state === 'running', { what: 'the row says running' })
  await world.startWorker()
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({ state: 'completed', output: { done: 12 } })
  expect([...(await world.providerAnswers()).values()]).toEqual(Array.from({ length: 12 }, () => 1))
})
