import { expect, test } from 'vitest'
import { createWorkflowWorld } from '../e2e/workflow-world.ts'
import { pollUntil } from '../support/poll.ts'

const CALLS = 1_000

test('a run of a thousand calls stays within what a history may hold, and makes each once', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const runId = await world.startAgent('steps', { count: CALLS })
  const run = await pollUntil(
    async () => {
      const row = await world.getRun(runId)
      return row.state !== 'running' && row.state !== 'queued' && row
    },
    { what: 'the run ends', deadlineMs: 900_000, intervalMs: 500 },
  )
  expect(run).toMatchObject({ state: 'completed', output: { done: CALLS } })
  const { historyLength, historySize } = await world.client.workflow.getHandle(runId).describe()
  expect(historyLength).toBeLessThan(51_200 / 4)
  expect(historySize).toBeLessThan(50_000_000 / 4)
  const answers = [...(await world.providerAnswers()).values()]
  expect(answers).toHaveLength(CALLS)
  expect(new Set(answers)).toEqual(new Set([1]))
})
