import { cancelRun } from '#db/run-commands.ts'
import { readReport } from '#db/report.ts'
import { expect, test } from 'vitest'
import { expectAllHome } from '../support/all-home.ts'
import { pollUntil } from '../support/poll.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

const FOR_EVER_MS = 120_000
const DELIVERED = { summary: expect.any(String) }

async function cancelGracefully(world: WorkflowWorld, runId: string, mode: 'now' | 'wrap_up'): Promise<void> {
  const { db, scope } = world
  const order = { runId, mode, reason: undefined, nowMs: Date.now() }
  await db.transaction().execute((trx) => cancelRun(trx, scope, order))
  await world.wake(runId)
}

async function untilSent({ db }: WorkflowWorld, path: string): Promise<void> {
  const isSent = () =>
    db
      .selectFrom('attempt')
      .innerJoin('call', 'call.id', 'attempt.call_id')
      .select('attempt.number')
      .where('attempt.state', '=', 'sent')
      .where('call.path', '=', path)
      .executeTakeFirst()
  await pollUntil(isSent, { what: `${path} is in flight` })
}

function hang(world: WorkflowWorld, matching: string): Promise<unknown> {
  return world.sandbox.control('PUT', '/faults/sandbox-steady', { matching, delayFirstByteMs: FOR_EVER_MS })
}

test('a run whose money ends delivers from its reserve, which nothing else could spend', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const choice = { direct: '0.001', wrapUpPercent: 50, onExhausted: 'cancel' as const }
  const runId = await world.startAgent('steps', { count: 100 }, choice)
  const run = await world.until(runId, ['partial', 'cancelled', 'completed', 'failed'])
  expect(run).toMatchObject({ state: 'partial', reason: 'money_exhausted', output: DELIVERED })
  const report = await readReport(world.db, world.scope, runId)
  expect(report?.calls.at(-1)).toMatchObject({ path: 'wrap_up/summary', state: 'answered' })
  expect(report?.calls.filter(({ state }) => state === 'open')).toHaveLength(1)
  await expectAllHome(world)
  await world.keepHistory(runId, 'wrapped-up')
})

test('a graceful cancel lets what is in flight finish, begins nothing of the work, and delivers', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: 'step 0002', delayFirstByteMs: 2_000 })
  const runId = await world.startAgent('steps', { count: 100 }, { wrapUpPercent: 20 })
  await untilSent(world, 'step/2')
  await cancelGracefully(world, runId, 'wrap_up')
  const run = await world.until(runId, ['partial', 'cancelled', 'completed', 'failed'])
  expect(run).toMatchObject({ state: 'partial', reason: 'cancelled', output: { done: 3, ...DELIVERED } })
  const report = await readReport(world.db, world.scope, runId)
  expect(report?.calls.map(({ path }) => path)).toEqual(['step/0', 'step/1', 'step/2', 'wrap_up/summary'])
  expect(report?.calls.flatMap(({ attempts }) => attempts.map(({ outcome }) => outcome))).toEqual(
    Array.from({ length: 4 }, () => 'answered'),
  )
  await expectAllHome(world)
  await world.keepHistory(runId, 'cancelled-gracefully')
})

test('a graceful cancel of a run without a reserve delivers its draft, and one that is waiting ends too', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const runId = await world.startAgent('steps', { count: 100 }, { direct: '0.0002' })
  await world.until(runId, ['paused'])
  await cancelGracefully(world, runId, 'wrap_up')
  expect(await world.until(runId, ['partial', 'cancelled', 'failed'])).toMatchObject({
    state: 'cancelled',
    reason: 'cancelled',
    output: { done: expect.any(Number) },
  })
  await expectAllHome(world)
})

test('a run whose time is over, and one that nobody resumes, deliver too', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  await hang(world, 'step 0002')
  const late = await world.startAgent('steps', { count: 9 }, { limits: { seconds: 3 }, wrapUpPercent: 20 })
  expect(await world.until(late, ['partial', 'cancelled', 'completed', 'failed'])).toMatchObject({
    state: 'partial',
    reason: 'deadline',
    output: { done: 2, ...DELIVERED },
  })
  const poor = await world.startAgent('asker', {}, { pauseDeadlineSeconds: 1, wrapUpPercent: 20 })
  expect(await world.until(poor, ['partial', 'completed', 'failed'])).toMatchObject({ reason: 'pause_expired' })
  // What delivers cannot ask: nobody could answer it any more.
  const asked = await world.db.selectFrom('run_question').select('path').where('run_id', '=', poor).execute()
  expect(asked).toEqual([{ path: 'permission' }])
  const choice = { direct: '0.0005', pauseDeadlineSeconds: 1, wrapUpPercent: 50 }
  await world.sandbox.control('DELETE', '/faults/sandbox-steady')
  const idle = await world.startAgent('steps', { count: 100 }, choice)
  expect(await world.until(idle, ['partial', 'cancelled', 'completed', 'failed'])).toMatchObject({
    state: 'partial',
    reason: 'pause_expired',
    output: DELIVERED,
  })
  await expectAllHome(world)
})

test('a cancel now ends a run that takes too long to deliver: its draft is what it delivers', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  await hang(world, 'What was done')
  const choice = { direct: '0.001', wrapUpPercent: 50, onExhausted: 'cancel' as const }
  const runId = await world.startAgent('steps', { count: 100 }, choice)
  await untilSent(world, 'wrap_up/summary')
  await cancelGracefully(world, runId, 'now')
  const run = await world.until(runId, ['partial', 'cancelled', 'completed', 'failed'])
  expect(run).toMatchObject({ state: 'cancelled', reason: 'money_exhausted', output: { done: expect.any(Number) } })
  expect(run.output).not.toMatchObject(DELIVERED)
  await expectAllHome(world)
  await world.keepHistory(runId, 'cancelled-while-wrapping-up')
})

test('a wrap-up that fails leaves the draft, and the run says why', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: 'What was done', garbage: 'not-json' })
  const choice = { direct: '0.001', wrapUpPercent: 50, onExhausted: 'cancel' as const }
  const runId = await world.startAgent('steps', { count: 100 }, choice)
  const run = await world.until(runId, ['partial', 'cancelled', 'completed', 'failed'])
  expect(run).toMatchObject({ state: 'cancelled', reason: 'money_exhausted', output: { done: expect.any(Number) } })
  const detail = expect.stringMatching(
    /are free\. The wrap-up failed: CallFailed: wrap_up.summary: routes_exhausted: ./,
  )
  expect(run).toMatchObject({ detail })
  const ended = await world.db
    .selectFrom('event')
    .select('data')
    .where('run_id', '=', runId)
    .where('kind', '=', 'run.cancelled')
    .executeTakeFirstOrThrow()
  expect(ended.data).toMatchObject({ detail: run.detail })
  await expectAllHome(world)
})

test('what a run that delivers has left is its reserve, which the work did not touch', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const choice = { direct: '0.001', wrapUpPercent: 50, onExhausted: 'cancel' as const }
  const runId = await world.startAgent('saver', {}, choice)
  const { state, output } = await world.until(runId, ['partial', 'cancelled', 'completed', 'failed'])
  const pocket = { balanceClass: 'direct', currency: 'USD', funded: '0.000500', held: '0.000000' }
  expect({ state, output }).toMatchObject({
    state: 'partial',
    output: {
      before: { pockets: [{ ...pocket, spent: '0.000000', free: '0.000500' }] },
      after: { pockets: [pocket] },
    },
  })
  expect(output).not.toMatchObject({ after: { pockets: [{ spent: '0.000000' }] } })
  await expectAllHome(world)
})
