import { newId } from '#db/ids.ts'
import { setLimit } from '#db/limit.ts'
import { readReport } from '#db/report.ts'
import { cancelRun, pauseRun } from '#db/run-commands.ts'
import { expect, test } from 'vitest'
import { expectAllHome } from '../support/all-home.ts'
import { pollUntil } from '../support/poll.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

const ENDS = ['partial', 'cancelled', 'completed', 'failed'] as const
const DELIVERED = { summary: expect.any(String) }

async function untilOpened({ db }: WorkflowWorld, path: string): Promise<void> {
  const isOpened = () => db.selectFrom('call').select('id').where('path', '=', path).executeTakeFirst()
  await pollUntil(isOpened, { what: `${path} is opened` })
}

/** From the next call on, this hour has no room. */
async function limitCalls({ db, scope }: WorkflowWorld, cap: bigint): Promise<void> {
  const project = await db.selectFrom('project').selectAll().where('id', '=', scope.projectId).executeTakeFirstOrThrow()
  const caller = { keyId: newId(Date.now()), organisationId: project.organisation_id, projectId: null }
  const limit = { scope: 'project', subjectId: scope.projectId, step: null, period: 'hour', timeZone: 'UTC' } as const
  const calls = { measure: 'calls', currency: null, cap } as const
  const verdict = await db
    .transaction()
    .execute((trx) => setLimit(trx, caller, { id: newId(Date.now()), ...limit, ...calls }))
  expect(verdict).toBe('set')
}

test('a paused run whose work is all in its children ends at the deadline of its pause', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: 'step 0001', delayFirstByteMs: 3_000 })
  const runId = await world.startAgent('family', { children: 1, steps: 9 }, { pauseDeadlineSeconds: 2 })
  await untilOpened(world, 'step/1')
  const { db, scope } = world
  await db.transaction().execute((trx) => pauseRun(trx, scope, { runId, nowMs: Date.now() }))
  await world.wake(runId)
  expect(await world.until(runId, ENDS)).toMatchObject({ state: 'partial', reason: 'pause_expired' })
  await expectAllHome(world)
  await world.keepHistory(runId, 'pause-of-a-family-expired')
})

test('a run that is paused before its workflow begins, and begins with children, ends at the deadline of its pause', async () => {
  const world = await createWorkflowWorld([])
  const runId = await world.startAgent('family', { children: 1, steps: 2 }, { pauseDeadlineSeconds: 2 })
  const { db, scope } = world
  await db.transaction().execute((trx) => pauseRun(trx, scope, { runId, nowMs: Date.now() }))
  await world.startWorker()
  expect(await world.until(runId, ENDS)).toMatchObject({ state: 'partial', reason: 'pause_expired' })
  await expectAllHome(world)
})

test('a graceful cancel does not wait for the window of a limit that a call waits for', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  await limitCalls(world, 3n)
  const runId = await world.startAgent('steps', { count: 9 })
  await untilOpened(world, 'step/3')
  const { db, scope } = world
  const waits = async () => {
    const { pendingActivities = [] } = (await world.client.workflow.getHandle(runId).describe()).raw
    return pendingActivities?.length === 0
  }
  await pollUntil(waits, { what: 'the workflow waits on its own' })
  const order = { runId, mode: 'wrap_up', reason: undefined, nowMs: Date.now() } as const
  await db.transaction().execute((trx) => cancelRun(trx, scope, order))
  await world.wake(runId)
  expect(await world.until(runId, ENDS)).toMatchObject({ state: 'cancelled', output: { done: 3 } })
  await expectAllHome(world)
  await world.keepHistory(runId, 'cancelled-while-waiting')
})

test('a run that was downgraded delivers with what it was downgraded to', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const downgrade = { model: 'research', constraints: { balanceClasses: ['credit' as const] }, then: 'cancel' as const }
  const choice = { onExhausted: 'downgrade' as const, downgrade, direct: '0.0004', credit: '0.001', wrapUpPercent: 50 }
  const runId = await world.startAgent('steps', { count: 100 }, choice)
  expect(await world.until(runId, ENDS)).toMatchObject({ state: 'partial', output: DELIVERED })
  const report = await readReport(world.db, world.scope, runId)
  expect(report?.calls.at(-1)).toMatchObject({ path: 'wrap_up/summary', model: 'research' })
  await expectAllHome(world)
})

test('a wrap-up whose call may have been executed asks nobody, where its owner is to be asked', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: 'What was done', garbage: 'not-json' })
  const choice = { direct: '0.001', wrapUpPercent: 50, onExhausted: 'cancel' as const, mayRepeat: 0 }
  const runId = await world.startAgent('steps', { count: 100 }, choice)
  expect(await world.until(runId, ENDS)).toMatchObject({
    state: 'cancelled',
    reason: 'money_exhausted',
    output: { done: expect.any(Number) },
  })
  await expectAllHome(world)
})
