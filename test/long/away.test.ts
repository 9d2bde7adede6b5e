import { expect, test } from 'vitest'
import { createMapWorld } from '../e2e/map-world.ts'
import { pollUntil } from '../support/poll.ts'

test('rows whose provider never comes back have their error once they have waited, and hold up no other', async () => {
  const world = await createMapWorld()
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: 'tide', overloaded: true })
  const lines = Array.from(
    { length: 40 },
    (_, index) => `Row ${index} tells of the ${index % 10 === 3 ? 'tide' : 'ebb'}.`,
  )
  const datasetId = await world.upload(`text\n${lines.join('\n')}`)
  const runId = await world.startMap({ datasetId, prompt: 'What is this about? {{text}}', concurrency: 16 })
  const run = await pollUntil(
    async () => {
      const row = await world.getRun(runId)
      return row.state !== 'running' && row.state !== 'queued' && row
    },
    { what: 'the run ends', deadlineMs: 600_000, intervalMs: 500 },
  )
  expect(run).toMatchObject({ state: 'completed', output: { answered: 36, failed: 4 } })
  const reasons = (await world.rowsOf(runId)).flatMap(({ outcome, reason }) => (outcome === 'failed' ? [reason] : []))
  for (const reason of reasons) expect(['routes_exhausted', 'routes_unavailable']).toContain(reason)
  expect([...(await world.providerAnswers()).values()].filter((times) => times !== 1)).toEqual([])
})
