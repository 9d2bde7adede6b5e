import { expect, test } from 'vitest'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

async function expectRolledOver({ client }: WorkflowWorld, runId: string): Promise<void> {
  const { events } = await client.workflow.getHandle(runId).fetchHistory()
  const started = events?.[0]?.workflowExecutionStartedEventAttributes
  expect(started?.continuedExecutionRunId).toBeTruthy()
}

test('a run goes on in a new history when its own is long, and makes no call twice', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const runId = await world.startAgent('steps', { count: 20, longAfter: 40 })
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({ state: 'completed', output: { done: 20 } })
  await expectRolledOver(world, runId)
  expect([...(await world.providerAnswers()).values()]).toEqual(Array.from({ length: 20 }, () => 1))
  await world.keepHistory(runId, 'rolled-over')
})

test('a run that goes on in a new history hears what it was told meanwhile', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const runId = await world.startAgent('steps', { count: 40, longAfter: 40 }, { direct: '0.0002' })
  for (let round = 0; round < 20; round += 1) {
    const { state } = await world.until(runId, ['paused', 'completed', 'failed'])
    if (state !== 'paused') break
    await world.topUp(runId, '0.0003')
    await world.until(runId, ['running', 'paused', 'completed', 'failed'])
  }
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({ state: 'completed', output: { done: 40 } })
  expect([...(await world.providerAnswers()).values()]).toEqual(Array.from({ length: 40 }, () => 1))
})
