import { answerQuestion } from '#db/run-pause.ts'
import { expect, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { attemptsOf, createMapWorld, expectBooksInOrder, type MapWorld } from './map-world.ts'

const PROMPT = 'Say what this is about.\n\n{{text}}'

async function questionsOf({ db }: MapWorld, runId: string) {
  return db
    .selectFrom('run_question')
    .select(['path', 'question', 'choices', 'answer'])
    .where('run_id', '=', runId)
    .orderBy('asked_at')
    .execute()
}

function upload(world: MapWorld, rows: number, text: (index: number) => string): Promise<string> {
  return world.upload(`text\n${Array.from({ length: rows }, (_, index) => `Row ${index} ${text(index)}.`).join('\n')}`)
}

test('rows that may have been executed are put to their owner in one question, when all others are done', async () => {
  const world = await createMapWorld()
  await world.startWorker()
  const datasetId = await upload(world, 60, (index) => (index % 20 === 7 ? 'slips' : 'tells of the tide'))
  await world.sandbox.control('PUT', '/faults/sandbox-steady', {
    matching: 'slips',
    cutStreamAfterChunks: 1,
    times: 4,
  })
  const runId = await world.startMap({ datasetId, prompt: PROMPT, concurrency: 8 }, { mayRepeat: 0 })
  expect(await world.until(runId, ['paused', 'completed', 'failed'])).toMatchObject({
    state: 'paused',
    reason: 'input',
  })
  expect(await questionsOf(world, runId)).toMatchObject([
    { path: 'rows/repeat/1/1', choices: ['repeat', 'give up'], question: expect.stringContaining('8, 28, 48') },
  ])
  const answered = (await attemptsOf(world, runId)).filter(({ outcome }) => outcome === 'answered')
  expect(answered).toHaveLength(57)
  const unsure = (await world.rowsOf(runId)).filter(({ outcome }) => outcome === 'failed')
  expect(unsure.map(({ number, reason }) => `${number} ${reason}`)).toEqual(
    [8, 28, 48].map((number) => `${number} repeat_not_allowed`),
  )
  await answer(world, runId, { path: 'rows/repeat/1/1', answer: 'repeat' })
  // One of them is cut off once more: it is asked about again, alone.
  await pollUntil(async () => (await questionsOf(world, runId)).length === 2, {
    what: 'another question',
    deadlineMs: 60_000,
  })
  await answer(world, runId, { path: 'rows/repeat/1/2', answer: 'repeat' })
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({
    state: 'completed',
    output: { rows: 60, answered: 60, failed: 0 },
  })
  const begun = [...(await world.providerAnswers()).values()]
  expect([begun.length, begun.reduce((sum, times) => sum + times, 0), Math.max(...begun)]).toEqual([60, 64, 3])
  expect((await world.rowsOf(runId)).every(({ call_ids: ids }) => ids.length === 1)).toBe(true)
  await expectBooksInOrder(world, runId)
  await world.keepHistory(runId, 'map-asked-to-repeat')
})

test('rows about which nobody answers in time keep their errors, and the run delivers the others', async () => {
  const world = await createMapWorld()
  await world.startWorker()
  const datasetId = await upload(world, 20, (index) => (index === 7 ? 'slips' : 'tells of the tide'))
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: 'slips', cutStreamAfterChunks: 1 })
  const choice = { mayRepeat: 0, pauseDeadlineSeconds: 1 }
  const runId = await world.startMap({ datasetId, prompt: PROMPT }, choice)
  const run = await world.until(runId, ['completed', 'partial', 'failed'])
  expect(run).toMatchObject({ state: 'completed', output: { rows: 20, answered: 19, failed: 1 } })
  expect(await questionsOf(world, runId)).toMatchObject([{ answer: 'give up' }])
  expect([...(await world.providerAnswers()).values()]).toEqual(Array.from({ length: 20 }, () => 1))
  await expectBooksInOrder(world, runId)
})

async function answer(world: MapWorld, runId: string, given: { readonly path: string; readonly answer: string }) {
  const { db, scope } = world
  await db.transaction().execute((trx) => answerQuestion(trx, scope, { runId, ...given, keyId: null }))
  await world.wake(runId)
}
