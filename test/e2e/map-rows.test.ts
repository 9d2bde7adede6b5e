import { expect, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { attemptsOf, createMapWorld, expectBooksInOrder, type MapWorld, untilCancelled } from './map-world.ts'
import { startWorkerProcess } from './worker-process.ts'

const PROMPT = 'Say what this is about.\n\n{{text}}'
/** Longer than any test: only an abort ends it. */
const FOR_EVER_MS = 120_000

/** Of so many rows `npm test` shows it; ten thousand take their time, and are asked for by PURSER_MAP_ROWS. */
// oxlint-disable-next-line node/no-process-env -- a test that is made longer by hand
const ROWS = Number(process.env['PURSER_MAP_ROWS'] ?? 600)

async function callsOf({ db }: MapWorld, runId: string) {
  return db.selectFrom('call').select(['id', 'path', 'state']).where('run_id', '=', runId).execute()
}

async function doneOf({ db }: MapWorld, runId: string): Promise<number> {
  const { count } = await db
    .selectFrom('run_map_row')
    .select((select) => select.fn.countAll<bigint>().as('count'))
    .where('run_id', '=', runId)
    .where('outcome', '=', 'answered')
    .executeTakeFirstOrThrow()
  return Number(count)
}

test(
  `${ROWS} rows with a fault in each twentieth request and a worker killed in the middle: every row once`,
  { timeout: 600_000 },
  async () => {
    const world = await createMapWorld()
    const slips = Array.from({ length: ROWS / 20 }, (_, index) => `slip-${index}x`)
    const faults = [{ cutStreamAfterChunks: 1 }, { serverError: true }, { overloaded: true, retryAfterMs: 20 }]
    const rules = slips.map((matching, index) => ({ matching, times: 1, ...faults[index % faults.length] }))
    await world.sandbox.control('PUT', '/faults/sandbox-steady', rules)
    const text = (index: number): string => (index % 20 === 7 ? (slips[(index - 7) / 20] ?? '') : 'no slip')
    const lines = Array.from(
      { length: ROWS },
      (_, index) => `${index + 1},Row ${index} tells of the tide: ${text(index)}.`,
    )
    const datasetId = await world.upload(`id,text\n${lines.join('\n')}`)
    const first = await startWorkerProcess(world)
    // A row that slipped may be lost with the worker as well.
    const runId = await world.startMap({ datasetId, prompt: PROMPT, concurrency: 32 }, { mayRepeat: 3 })
    await pollUntil(async () => (await doneOf(world, runId)) > ROWS / 3, { what: 'a third', deadlineMs: 300_000 })
    first.kill('SIGKILL')
    await first.exited
    await startWorkerProcess(world)
    await pollUntil(async () => (await world.getRun(runId)).state === 'completed', {
      what: 'the run',
      deadlineMs: 500_000,
    })

    expect((await world.getRun(runId)).output).toEqual({ rows: ROWS, answered: ROWS, failed: 0 })
    const rows = await world.rowsOf(runId)
    expect(rows.map(({ number, outcome }) => `${number} ${outcome}`)).toEqual(
      lines.map((_, index) => `${index + 1} answered`),
    )
    const calls = await callsOf(world, runId)
    expect(calls).toHaveLength(ROWS)
    expect(new Set(rows.flatMap(({ call_ids: ids }) => ids))).toEqual(new Set(calls.map(({ id }) => id)))
    // What the provider began to answer is one answer per row, what it cut, and what the killed worker had in flight.
    const attempts = await attemptsOf(world, runId)
    const countOf = (outcome: string): number => attempts.filter((attempt) => attempt.outcome === outcome).length
    const begun = [...(await world.providerAnswers()).values()].reduce((sum, times) => sum + times, 0)
    expect(countOf('answered')).toBe(ROWS)
    // Those at the provider, held for a place there, or being settled.
    expect(countOf('lost')).toBeLessThanOrEqual(64)
    // One that was cut as the worker was killed is lost to us.
    const cut = Math.ceil(slips.length / faults.length)
    expect(countOf('cut_stream')).toBeLessThanOrEqual(cut)
    expect(countOf('cut_stream') + countOf('lost')).toBeGreaterThanOrEqual(cut)
    expect(begun).toBeLessThanOrEqual(ROWS + countOf('cut_stream') + countOf('lost'))
    expect(begun).toBeGreaterThanOrEqual(ROWS + countOf('cut_stream'))
    await expectBooksInOrder(world, runId)
  },
)

test('without money a map pauses once, and after a top-up asks the rows that are left, and none twice', async () => {
  const world = await createMapWorld()
  await world.startWorker()
  const lines = Array.from({ length: 60 }, (_, index) => `Row ${index} tells of the tide.`)
  const datasetId = await world.upload(`text\n${lines.join('\n')}`)
  const runId = await world.startMap({ datasetId, prompt: PROMPT, concurrency: 8 }, { direct: '0.002' })
  const paused = await world.until(runId, ['paused', 'completed', 'failed'])
  expect(paused).toMatchObject({ state: 'paused', reason: 'money_exhausted', stop: { currency: 'USD' } })
  const before = await doneOf(world, runId)
  expect(before).toBeGreaterThan(0)
  await world.topUp(runId, '1')
  const run = await world.until(runId, ['completed', 'failed'])
  expect(run).toMatchObject({ state: 'completed', output: { rows: 60, answered: 60, failed: 0 } })
  const answers = [...(await world.providerAnswers()).values()]
  expect([answers.length, answers.filter((times) => times !== 1)]).toEqual([60, []])
  const events = await world.db.selectFrom('event').select('kind').where('run_id', '=', runId).execute()
  expect(events.filter(({ kind }) => kind === 'run.paused')).toHaveLength(1)
  await expectBooksInOrder(world, runId)
  await world.keepHistory(runId, 'map-paused-and-topped-up')
})

test('a row that fails is a row with an error, and stops no other; so is one whose answer is no object of the schema', async () => {
  const world = await createMapWorld()
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', [
    { matching: 'unwanted', invalid: true },
    { matching: 'mumble', contentFilter: true },
  ])
  const texts = ['good', 'unwanted', undefined, 'mumble', 'also good']
  const file = texts.map((text) => JSON.stringify({ ...(text !== undefined && { text: `This is ${text}.` }), id: 1 }))
  const datasetId = await world.upload(file.join('\n'), 'jsonl')
  const runId = await world.startMap({ datasetId, prompt: PROMPT })
  const run = await world.until(runId, ['completed', 'failed'])
  expect(run).toMatchObject({ state: 'completed', output: { rows: 5, answered: 2, failed: 3 } })
  const rows = await world.rowsOf(runId)
  expect(rows.map(({ outcome, reason }) => reason ?? outcome)).toEqual([
    'answered',
    'refused_by_provider',
    'missing_column',
    'refused_by_provider',
    'answered',
  ])
  expect(rows.map(({ call_ids: ids }) => ids.length)).toEqual([1, 1, 0, 1, 1])
  await world.sandbox.control('DELETE', '/faults/sandbox-steady')
  await showMalformedAnswers(world)
})

/** Answers that are no objects of the schema are errors of their rows. */
async function showMalformedAnswers(world: MapWorld): Promise<void> {
  const datasetId = await world.upload('text\nThe tide comes in at noon.\nShips leave at dawn.\n')
  const schemaOf = (minLength: number) => ({
    type: 'object',
    properties: { sum: { type: 'string', minLength } },
    required: ['sum'],
    additionalProperties: false,
  })
  const fitting = await world.startMap({ datasetId, prompt: PROMPT, schema: schemaOf(1) })
  expect(await world.until(fitting, ['completed', 'failed'])).toMatchObject({ output: { answered: 2, failed: 0 } })
  // More than any answer of so few tokens has.
  const cut = await world.startMap({ datasetId, prompt: PROMPT, schema: schemaOf(5_000) })
  expect(await world.until(cut, ['completed', 'failed'])).toMatchObject({
    state: 'completed',
    output: { answered: 0, failed: 2 },
  })
  expect((await world.rowsOf(cut)).map(({ reason }) => reason)).toEqual(['malformed_object', 'malformed_object'])
}

test('a cancel in the middle aborts what is in flight, begins nothing more, and delivers the counts', async () => {
  const world = await createMapWorld()
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: 'endless', delayFirstByteMs: FOR_EVER_MS })
  const lines = Array.from({ length: 500 }, (_, index) => `Row ${index} ${index % 125 < 10 ? 'ends' : 'is endless'}.`)
  const datasetId = await world.upload(`text\n${lines.join('\n')}`)
  const runId = await world.startMap({ datasetId, prompt: PROMPT, concurrency: 16 })
  // Four batches of 125 rows: ten rows of each end, four hang, and a few are held for when there is a place.
  const isBusy = async () => {
    const attempts = await attemptsOf(world, runId)
    const answered = attempts.filter(({ outcome }) => outcome === 'answered').length
    return answered === 40 && (await world.sandbox.readLog()).length === 56
  }
  await pollUntil(isBusy, { what: 'all places are taken by endless rows', deadlineMs: 30_000 })
  await world.cancel(runId)
  const run = await untilCancelled(world, runId)
  const attempts = await attemptsOf(world, runId)
  expect(run).toMatchObject({ reason: 'cancelled', output: { rows: 500, failed: 0 } })
  const aborted = attempts.length - 40
  expect(attempts.filter(({ outcome }) => outcome === 'aborted')).toHaveLength(aborted)
  expect(aborted).toBeLessThanOrEqual(32)
  expect(await world.sandbox.readLog()).toHaveLength(56)
  const rows = await world.rowsOf(runId)
  // Those that were about to begin when the gate closed may have a call, but no attempt.
  expect(rows.filter(({ outcome }) => outcome === 'open').length).toBeGreaterThanOrEqual(aborted)
  expect(rows.filter(({ outcome }) => outcome === 'answered')).toHaveLength(40)
  expect(run.output).toMatchObject({ answered: 40 })
  await expectBooksInOrder(world, runId)
  await world.keepHistory(runId, 'map-cancelled')
})

test('a worker that is told to end finishes the rows that it has begun, and another does the rest', async () => {
  const world = await createMapWorld()
  const first = await world.startWorker({ drainTimeoutMs: 20_000 })
  await world.sandbox.control('PUT', '/settings/sandbox-steady', { delayFirstByteMs: 100 })
  const lines = Array.from({ length: 150 }, (_, index) => `Row ${index} tells of the tide.`)
  const datasetId = await world.upload(`text\n${lines.join('\n')}`)
  const runId = await world.startMap({ datasetId, prompt: PROMPT, concurrency: 4 })
  await pollUntil(async () => (await attemptsOf(world, runId)).length > 20, { what: 'some rows', deadlineMs: 20_000 })
  first.shutdown()
  await first.ended
  const attempts = await attemptsOf(world, runId)
  expect(attempts.length).toBeLessThan(150)
  expect(new Set(attempts.map(({ outcome }) => outcome))).toEqual(new Set(['answered']))
  await world.startWorker()
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({
    state: 'completed',
    output: { answered: 150 },
  })
  expect([...(await world.providerAnswers()).values()].filter((times) => times !== 1)).toEqual([])
})

test('without money a map goes on with what its owner chose, from the row where it stopped', async () => {
  const world = await createMapWorld()
  await world.startWorker()
  const lines = Array.from({ length: 60 }, (_, index) => `Row ${index} tells of the tide.`)
  const datasetId = await world.upload(`text\n${lines.join('\n')}`)
  const pockets = [
    { balanceClass: 'direct', amount: { amount: '0.002', currency: 'USD' } },
    { balanceClass: 'credit', amount: { amount: '1', currency: 'USD' } },
  ]
  const downgrade = { model: 'research', then: 'cancel' }
  const choice = { onExhausted: 'downgrade', downgrade, envelope: { pockets } }
  const runId = await world.startMap({ datasetId, prompt: PROMPT, concurrency: 8 }, choice)
  const run = await world.until(runId, ['completed', 'cancelled', 'failed'])
  expect(run).toMatchObject({ state: 'completed', output: { rows: 60, answered: 60, failed: 0 } })
  const answers = await world.db
    .selectFrom('call')
    .select(['path', 'model'])
    .where('run_id', '=', runId)
    .where('state', '=', 'answered')
    .execute()
  expect(answers).toHaveLength(60)
  expect(new Set(answers.map(({ path }) => path)).size).toBe(60)
  expect(new Set(answers.map(({ model }) => model))).toEqual(new Set(['steady', 'research']))
  expect([...(await world.providerAnswers()).values()].filter((times) => times !== 1)).toEqual([])
  await expectBooksInOrder(world, runId)
})

test('a history that goes on from an earlier one begins at its cursor, and adds to its counts', async () => {
  const world = await createMapWorld()
  await world.startWorker()
  const datasetId = await world.upload(`text\n${Array.from({ length: 30 }, (_, index) => `Row ${index}`).join('\n')}`)
  const state = { next: 21, answered: 18, failed: 2 }
  const runId = await world.startMap({ datasetId, prompt: PROMPT }, {}, { state, draft: null })
  const run = await world.until(runId, ['completed', 'failed'])
  expect(run).toMatchObject({ state: 'completed', output: { rows: 30, answered: 28, failed: 2 } })
  expect((await world.rowsOf(runId)).map(({ number }) => number)).toEqual(Array.from({ length: 10 }, (_, i) => 21 + i))
})
