import { executeCall } from '#calls/execute.ts'
import { eventsAfter } from '#db/event.ts'
import { setGate } from '#db/ledger.ts'
import { readReport } from '#db/report.ts'
import { expect, test } from 'vitest'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { createWorld, requestsSeen, testCatalog, type TestRun, type World } from '../support/world.ts'

async function attemptsOf(world: World, run: TestRun) {
  const report = await readReport(world.db, world.scope, run.runId)
  return report?.calls.flatMap(({ attempts }) => attempts) ?? []
}

test('a cancel anywhere aborts a stream within two seconds, and what was received is settled', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const { envelopeId } = run
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { delayPerChunkMs: 3_000 })
  const call = executeCall(engine, run.request('one', QUESTION))
  await pollUntil(async () => (await requestsSeen(world.sandbox)).some(({ begun }) => begun), { what: 'the request' })
  const cancelledAtMs = Date.now()
  await world.db
    .transaction()
    .execute((trx) => setGate(trx, world.scope, { envelopeId, gate: 'closing', reason: 'cancelled' }))
  const seen = await pollUntil(async () => (await world.sandbox.readLog()).find((each) => each.clientGoneAt), {
    what: 'the abort at the provider',
  })
  expect(Date.parse(seen.clientGoneAt ?? '') - cancelledAtMs).toBeLessThan(2_000)
  expect(await call).toMatchObject({ kind: 'gate', gate: 'closing' })
  expect(await attemptsOf(world, run)).toMatchObject([{ outcome: 'aborted', certainty: 'estimated', use: 'wasted' }])
  await expectVerified(world)
})

test('a route that billed above a hold holds more from then on, and the run is told', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { promptMultiplier: 30 })
  for (const path of ['first', 'second']) {
    expect(await executeCall(engine, run.request(path, QUESTION))).toMatchObject({ kind: 'answered' })
  }
  const [first, second] = await attemptsOf(world, run)
  expect(first).toMatchObject({ worstCase: { distrustPpm: 0 } })
  expect(Number(first?.overage.amount)).toBeGreaterThan(0)
  // The same question: the raised hold is enough for what the provider bills.
  expect(second?.worstCase.distrustPpm).toBeGreaterThan(0)
  expect(second).toMatchObject({ overage: { amount: '0.000000' } })
  const events = await eventsAfter(world.db, world.scope, { runId: run.runId, after: undefined, limit: 100 })
  expect(events.filter(({ kind }) => kind === 'route.distrusted')).toMatchObject([
    { data: { route: 'steady', attempt: 1, distrustPpm: second?.worstCase.distrustPpm } },
  ])
  // It is known to processes that start later, too.
  const later = await world.startEngine()
  await executeCall(later, run.request('third', QUESTION))
  expect((await attemptsOf(world, run)).at(-1)?.worstCase.distrustPpm).toBe(second?.worstCase.distrustPpm)
  await expectVerified(world)
})

test('a better route that was closed is named with the reason, in the attempt that went past it', async () => {
  const models = [{ name: 'two', routes: [route('busy'), route('steady')] }]
  const world = await createWorld({ catalog: { ...testCatalog, models } })
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  await world.sandbox.control('PUT', '/faults/sandbox-busy', { rateLimit: true, retryAfterMs: 70_000 })
  for (const path of ['first', 'second']) {
    const result = await executeCall(engine, run.request(path, QUESTION, { model: 'two' }))
    expect(result).toMatchObject({ kind: 'answered' })
  }
  const calls = (await readReport(world.db, world.scope, run.runId))?.calls
  expect(calls).toMatchObject([
    {
      attempts: [
        { route: 'busy', outcome: 'rate_limited' },
        { route: 'steady', why: 'fallback' },
      ],
    },
    { attempts: [{ route: 'steady', why: 'first' }], skipped: [{ route: 'busy', reason: 'circuit_open' }] },
  ])
})

function route(name: string) {
  const [steady] = testCatalog.models.find((model) => model.name === 'steady')?.routes ?? []
  if (!steady) throw new Error('the catalog has a steady route')
  return { ...steady, name, upstreamModel: `sandbox-${name}` }
}

test('a route asks for no more output than its limit by the minute can ever give beside the prompt', async () => {
  const limited = { ...route('steady'), limits: { tokensPerMinute: 600 } }
  const world = await createWorld({ catalog: { ...testCatalog, models: [{ name: 'limited', routes: [limited] }] } })
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const body = { messages: [{ role: 'user' as const, content: QUESTION }], maxTokens: 4_000 }
  const result = await executeCall(engine, run.request('one', '', { body, model: 'limited' }))
  expect(result).toMatchObject({ kind: 'answered' })
  const [attempt] = await attemptsOf(world, run)
  const { inputTokens = 0, outputTokens } = attempt?.worstCase ?? {}
  expect(outputTokens).toBe(600 - inputTokens)
})
