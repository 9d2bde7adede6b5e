import type { ExternalRequest } from '#contracts/api-external.ts'
import { externalRequestSchema } from '#contracts/api-external.ts'
import { openExternalRun } from '#db/external-run.ts'
import { newId } from '#db/ids.ts'
import { endRun, pauseRun, resumeRun } from '#db/run-commands.ts'
import { expect, test } from 'vitest'
import { expectVerified } from '../support/open-attempt.ts'
import { makeKey } from '../support/world.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

/** Opened as the API does, and started as its dispatcher does. */
async function openRun(world: WorkflowWorld, change: Partial<ExternalRequest>): Promise<string> {
  const { db, scope, client, taskQueue } = world
  const keyId = await makeKey(db, scope)
  const { organisation_id: organisationId } = await db
    .selectFrom('project')
    .select('organisation_id')
    .where('id', '=', scope.projectId)
    .executeTakeFirstOrThrow()
  const pockets = [{ balanceClass: 'direct', amount: { amount: '1', currency: 'USD' } }]
  const request = externalRequestSchema.parse({ envelope: { pockets }, ...change })
  const secret = `purser_rk_${newId(Date.now())}`
  const run = { request, keyId, organisationId, secret, nowMs: Date.now() }
  const { runId } = await db.transaction().execute((trx) => openExternalRun(trx, scope, run))
  await client.workflow.start('external', { workflowId: runId, taskQueue, args: [{ runId }] })
  return runId
}

async function order(world: WorkflowWorld, runId: string, action: typeof endRun): Promise<void> {
  const { db, scope } = world
  await db.transaction().execute((trx) => action(trx, scope, { runId, nowMs: Date.now() }))
  await world.wake(runId)
}

const OVER = ['completed', 'partial', 'cancelled', 'failed'] as const

test('an external run completes when its owner ends it, through a pause and also before its workflow begins', async () => {
  const world = await createWorkflowWorld([])
  const early = await openRun(world, {})
  await order(world, early, endRun)
  const runId = await openRun(world, { idleSeconds: 600, limits: { seconds: 600 } })
  await world.startWorker()
  const ended = { state: 'completed', reason: 'finished', detail: 'Ended by its owner.' }
  expect(await world.until(early, OVER)).toMatchObject(ended)
  await order(world, runId, pauseRun)
  expect(await world.until(runId, ['paused'])).toMatchObject({ reason: 'paused_by_owner' })
  await order(world, runId, resumeRun)
  await order(world, runId, endRun)
  expect(await world.until(runId, OVER)).toMatchObject(ended)
  expect(await world.client.workflow.getHandle(runId).result()).toMatchObject({ state: 'completed' })
  await expectVerified(world)
  await world.keepHistory(runId, 'external-ended')
})

test('an external run that nobody ends is ended when it has been idle, at its deadline, or by a cancel', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const idle = await openRun(world, { idleSeconds: 2 })
  const late = await openRun(world, { limits: { seconds: 2 } })
  const cancelled = await openRun(world, {})
  await world.cancel(cancelled)
  expect(await world.until(idle, OVER)).toMatchObject({
    state: 'partial',
    reason: 'idle',
    detail: 'Nothing was asked for 2 seconds.',
  })
  expect(await world.until(late, OVER)).toMatchObject({ state: 'partial', reason: 'deadline' })
  expect(await world.until(cancelled, OVER)).toMatchObject({ state: 'cancelled', reason: 'cancelled' })
  await expectVerified(world)
  await world.keepHistory(idle, 'external-idle')
})
