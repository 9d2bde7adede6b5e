import { startSandbox } from '#sandbox/server.ts'
import { newId } from '#db/ids.ts'
import { openCircuit } from '#db/route-circuit.ts'
import { resetRoute } from '#db/route-health.ts'
import { pauseRun, resumeRun } from '#db/run-commands.ts'
import { expect, onTestFinished, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { attemptsOf, createMapWorld, expectBooksInOrder, type MapWorld, untilCancelled } from './map-world.ts'

const PROMPT = 'Say what this is about.\n\n{{text}}'
/** Longer than the waits for a provider that is back, on a slow machine. */
const SLOW = { timeout: 300_000 }

async function countOf(world: MapWorld, runId: string, outcome: string): Promise<number> {
  return (await attemptsOf(world, runId)).filter((attempt) => attempt.outcome === outcome).length
}

/** Passes over rows that have ended, as the workflow was told. */
async function passesOf({ client }: MapWorld, runId: string): Promise<number> {
  const { events } = await client.workflow.getHandle(runId).fetchHistory()
  const begun = events?.filter((event) => event.activityTaskScheduledEventAttributes?.activityType?.name === 'mapRows')
  const ids = new Set(begun?.map(({ eventId }) => String(eventId)))
  const ended = events?.filter((event) => ids.has(String(event.activityTaskCompletedEventAttributes?.scheduledEventId)))
  return ended?.length ?? 0
}

async function untilOver(world: MapWorld, runId: string) {
  return pollUntil(
    async () => {
      const run = await world.getRun(runId)
      return run.state !== 'running' && run.state !== 'queued' && run
    },
    { what: 'the run ends or pauses', deadlineMs: 240_000 },
  )
}

function upload(world: MapWorld, rows: number, text: (index: number) => string): Promise<string> {
  return world.upload(`text\n${Array.from({ length: rows }, (_, index) => `Row ${index} ${text(index)}.`).join('\n')}`)
}

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

test('rows wait for a provider that is busy, ask it little, and are all answered once', SLOW, async () => {
  const world = await createMapWorld()
  await world.startWorker()
  const datasetId = await upload(world, 120, (index) => (index < 20 ? 'is early' : 'comes later'))
  // Those on their way are refused twice, and so is a pass or more after them.
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: 'later', rateLimit: true, times: 26 })
  const runId = await world.startMap({ datasetId, prompt: PROMPT, concurrency: 8 })
  expect(await untilOver(world, runId)).toMatchObject({
    state: 'completed',
    output: { rows: 120, answered: 120, failed: 0 },
  })
  expect(await countOf(world, runId, 'rate_limited')).toBe(26)
  const answers = [...(await world.providerAnswers()).values()]
  expect([answers.length, answers.filter((times) => times !== 1)]).toEqual([120, []])
  await expectBooksInOrder(world, runId)
  await world.keepHistory(runId, 'map-waited-for-its-provider')
})

test('a provider that dies in the middle and comes back costs no row, and none is done twice', SLOW, async () => {
  const world = await createMapWorld()
  await world.startWorker()
  await world.sandbox.control('PUT', '/settings/sandbox-steady', { delayFirstByteMs: 50 })
  const datasetId = await upload(world, 200, () => 'tells of the tide')
  // What is cut off as the provider dies may have been executed.
  const runId = await world.startMap({ datasetId, prompt: PROMPT, concurrency: 8 }, { mayRepeat: 1 })
  await pollUntil(async () => (await countOf(world, runId, 'answered')) > 20, { what: 'some rows', deadlineMs: 60_000 })
  const before = await world.providerAnswers()
  await world.sandbox.close()
  // Those that were on their way have found it away, and so has a probe after them.
  const isAway = async () => (await countOf(world, runId, 'network_before_send')) >= 6
  await pollUntil(isAway, { what: 'the provider is found away', deadlineMs: 60_000 })
  const again = await startSandbox({ port: Number(new URL(world.sandbox.url).port) })
  onTestFinished(again.close)
  expect(await untilOver(world, runId)).toMatchObject({
    state: 'completed',
    output: { rows: 200, answered: 200, failed: 0 },
  })
  expect(await countOf(world, runId, 'answered')).toBe(200)
  // Two lives of the provider: what both began is what was answered, and what the death cut off.
  const after = await world.providerAnswers()
  const begun = [...before.values(), ...after.values()].reduce((sum, times) => sum + times, 0)
  const cut = (await countOf(world, runId, 'network_after_send')) + (await countOf(world, runId, 'cut_stream'))
  expect(begun).toBeLessThanOrEqual(200 + cut)
  await expectBooksInOrder(world, runId)
})

test('rows wait for a route whose circuit is open for longer than a call waits', SLOW, async () => {
  const world = await createMapWorld()
  const { db } = world
  const route = { provider: 'sandbox', upstreamModel: 'sandbox-steady' }
  const failure = { outcome: 'overloaded', message: null } as const
  await openCircuit(db, route, { epoch: 0, forMs: 300_000, failures: 5, failure })
  await world.startWorker()
  const datasetId = await upload(world, 60, () => 'tells of the tide')
  const runId = await world.startMap({ datasetId, prompt: PROMPT, concurrency: 8 })
  await pollUntil(async () => (await world.rowsOf(runId)).length > 0, { what: 'rows are put off', deadlineMs: 60_000 })
  const { id: organisationId } = await db.selectFrom('organisation').select('id').executeTakeFirstOrThrow()
  const caller = { keyId: newId(Date.now()), organisationId, projectId: null }
  const reset = { ...route, id: newId(Date.now()), what: 'circuit' } as const
  expect(await db.transaction().execute((trx) => resetRoute(trx, caller, reset))).toBe(true)
  expect(await untilOver(world, runId)).toMatchObject({ state: 'completed', output: { answered: 60, failed: 0 } })
  expect(await attemptsOf(world, runId)).toHaveLength(60)
})

test('a pause while rows wait for a provider holds them back also when it is there again', SLOW, async () => {
  const world = await createMapWorld()
  const { db, scope } = world
  await world.startWorker()
  const datasetId = await upload(world, 60, () => 'tells of the tide')
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { rateLimit: true })
  const runId = await world.startMap({ datasetId, prompt: PROMPT, concurrency: 8 })
  await pollUntil(async () => (await countOf(world, runId, 'rate_limited')) >= 24, {
    what: 'some passes in vain',
    deadlineMs: 120_000,
  })
  await db.transaction().execute((trx) => pauseRun(trx, scope, { runId, nowMs: Date.now() }))
  await world.wake(runId)
  await world.sandbox.control('DELETE', '/faults/sandbox-steady')
  const before = await passesOf(world, runId)
  const hasPassed = async () => (await passesOf(world, runId)) >= before + 2
  // The last two waits between passes are 30 s and a minute: on a slow machine it may have come as far as that.
  await pollUntil(hasPassed, { what: 'passes during the pause', deadlineMs: 120_000 })
  expect([await countOf(world, runId, 'answered'), (await world.getRun(runId)).state]).toEqual([0, 'paused'])
  await db.transaction().execute((trx) => resumeRun(trx, scope, { runId, nowMs: Date.now() }))
  await world.wake(runId)
  const done = async () => (await world.getRun(runId)).state === 'completed'
  await pollUntil(done, { what: 'the run ends', deadlineMs: 120_000 })
  expect(await world.getRun(runId)).toMatchObject({ output: { answered: 60, failed: 0 } })
  await expectBooksInOrder(world, runId)
})

test('a cancel while rows wait for a provider ends the run at once', SLOW, async () => {
  const world = await createMapWorld()
  await world.startWorker()
  const datasetId = await upload(world, 60, () => 'tells of the tide')
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { rateLimit: true })
  const runId = await world.startMap({ datasetId, prompt: PROMPT, concurrency: 8 })
  // More than are on their way at first: it waits between passes by now.
  await pollUntil(async () => (await countOf(world, runId, 'rate_limited')) >= 32, {
    what: 'some passes in vain',
    deadlineMs: 120_000,
  })
  await world.cancel(runId)
  const run = await untilCancelled(world, runId)
  expect(run).toMatchObject({ reason: 'cancelled', output: { rows: 60, answered: 0, failed: 0 } })
  expect(new Set((await world.rowsOf(runId)).map(({ outcome }) => outcome))).toEqual(new Set(['open']))
  await expectBooksInOrder(world, runId)
  await world.keepHistory(runId, 'map-cancelled-while-waiting')
})
