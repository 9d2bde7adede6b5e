import { manifests } from '#workflows/manifests.ts'
import { createCallActivities } from '#activities/chat.ts'
import { createRunActivities } from '#activities/run.ts'
import { createToolActivities } from '#activities/tool.ts'
import type { CallActivities, RunActivities } from '#contracts/activities.ts'
import { corpusStore } from '#db/corpus-search.ts'
import { WORKFLOWS } from '#src/worker.ts'
import { NativeConnection, Worker } from '@temporalio/worker'
import { expect, onTestFinished, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { inventFacts } from './invented-facts.ts'
import { bundleOf, createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

/** A worker like any other, whose answers to the workflow can be held back on their way. */
async function startSlowWorker(
  world: WorkflowWorld,
  slow: (activities: RunActivities & CallActivities) => RunActivities & CallActivities,
): Promise<void> {
  const { db, taskQueue, temporalAddress } = world
  const engine = await world.startEngine()
  const connection = await NativeConnection.connect({ address: temporalAddress })
  const worker = await Worker.create({
    connection,
    taskQueue,
    workflowBundle: await bundleOf(WORKFLOWS),
    activities: {
      ...createToolActivities({ db, storeOf: (scope) => corpusStore(db, scope) }),
      ...slow({ ...createRunActivities({ engine, agents: manifests }), ...createCallActivities({ engine }) }),
    },
  })
  const ended = worker.run()
  onTestFinished(async () => {
    worker.shutdown()
    await ended
    await connection.close()
  })
}

test('a wake that overtakes the answer to its pause is not lost', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  const release = Promise.withResolvers<void>()
  let looks = 0
  await startSlowWorker(world, (activities) => ({
    ...activities,
    async pauseForMoney(request) {
      const standing = await activities.pauseForMoney(request)
      await release.promise
      return standing
    },
    async standing(request) {
      const standing = await activities.standing(request)
      looks += 1
      return standing
    },
  }))
  const runId = await world.start(question, { direct: '0.002' })
  await world.until(runId, ['paused'])
  await world.topUp(runId, '1')
  await pollUntil(() => looks > 0, { what: 'the workflow looks at its row' })
  release.resolve()
  expect(await world.until(runId, ['completed', 'failed', 'partial'])).toMatchObject({ state: 'completed' })
})

test('a look that began before its run was paused does not end the pause: no call asks again', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  const release = Promise.withResolvers<void>()
  let isFirst = true
  let chats = 0
  await startSlowWorker(world, (activities) => ({
    ...activities,
    chat(request) {
      chats += 1
      return activities.chat(request)
    },
    async standing(request) {
      const standing = await activities.standing(request)
      if (isFirst) {
        isFirst = false
        await release.promise
      }
      return standing
    },
  }))
  const runId = await world.start(question, { direct: '0.002', breadth: 1, pauseDeadlineSeconds: 3 })
  await world.wake(runId)
  await pollUntil(() => !isFirst, { what: 'the workflow looks at its row', intervalMs: 5 })
  await world.until(runId, ['paused'])
  const before = chats
  release.resolve()
  const run = await world.until(runId, ['partial', 'completed', 'failed'])
  expect(run).toMatchObject({ state: 'partial', reason: 'pause_expired' })
  expect(chats).toBe(before)
})

test('what was refused before a downgrade, and is told after it, is asked again with what was chosen', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  const isDowngraded = Promise.withResolvers<void>()
  let refused = 0
  await startSlowWorker(world, (activities) => ({
    ...activities,
    async chat(request) {
      if (request.downgraded) isDowngraded.resolve()
      const result = await activities.chat(request)
      const isLate = result.kind === 'exhausted' && !request.downgraded && (refused += 1) > 1
      if (isLate) await isDowngraded.promise
      return result
    },
  }))
  const downgrade = { model: 'research', constraints: { balanceClasses: ['credit' as const] }, then: 'cancel' as const }
  const choice = { onExhausted: 'downgrade' as const, downgrade, direct: '0.002', credit: '1' }
  const runId = await world.start(question, { ...choice, breadth: 4 })
  expect(await world.until(runId, ['completed', 'cancelled', 'failed'])).toMatchObject({ state: 'completed' })
  expect(refused).toBeGreaterThan(1)
})
