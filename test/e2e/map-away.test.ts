import { expect, test } from 'vitest'
import { attemptsOf, createMapWorld, expectBooksInOrder } from './map-world.ts'

const PROMPT = 'Say what this is about.\n\n{{text}}'

test('rows wait for a provider that is away, and none of them is an error for it', async () => {
  const world = await createMapWorld()
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: 'tide', overloaded: true, times: 8 })
  const lines = Array.from({ length: 60 }, (_, index) => `Row ${index} tells of the ${index < 20 ? 'ebb' : 'tide'}.`)
  const datasetId = await world.upload(`text\n${lines.join('\n')}`)
  const runId = await world.startMap({ datasetId, prompt: PROMPT, concurrency: 8 })
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({
    state: 'completed',
    output: { answered: 60, failed: 0 },
  })
  const outcomes = Object.groupBy(await attemptsOf(world, runId), ({ outcome }) => outcome ?? 'none')
  expect([outcomes['overloaded']?.length, outcomes['answered']?.length]).toEqual([8, 60])
  expect([...(await world.providerAnswers()).values()].filter((times) => times !== 1)).toEqual([])
  await expectBooksInOrder(world, runId)
})

test('a row that may have been executed is its error where nothing may be repeated: nobody is asked about each', async () => {
  const world = await createMapWorld()
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: 'tide', cutStreamAfterChunks: 1 })
  const datasetId = await world.upload('text\nThe ebb.\nThe tide.\nThe flood.')
  const runId = await world.startMap({ datasetId, prompt: PROMPT }, { mayRepeat: 0 })
  expect(await world.until(runId, ['completed', 'failed', 'paused'])).toMatchObject({
    state: 'completed',
    output: { answered: 2, failed: 1 },
  })
  const rows = await world.rowsOf(runId)
  expect(rows.map(({ outcome, reason }) => reason ?? outcome)).toEqual(['answered', 'repeat_not_allowed', 'answered'])
  expect([...(await world.providerAnswers()).values()]).toEqual([1, 1, 1])
})
