import { executeCall } from '#calls/execute.ts'
import type { CallRequest } from '#calls/call.ts'
import { planSchema } from '#contracts/stored.ts'
import { readReport } from '#db/report.ts'
import type { AnswerDelta } from '#providers/provider.ts'
import { expect, test } from 'vitest'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { createWorld, neighbourOf, requestsSeen, testCatalog, type TestRun, type World } from '../support/world.ts'

const QUESTION = '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?'
const DAY_MS = 86_400_000

async function reportOf(world: World, run: TestRun) {
  const report = await readReport(world.db, world.scope, run.runId)
  if (!report) throw new Error('no report')
  return report
}

test('a stored answer is used again in another run where both calls chose that, at no cost', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const [first, second, third] = [
    await world.openRun({ direct: 1_000_000_000n }),
    await world.openRun({ direct: 1_000_000_000n }),
    await world.openRun({ direct: 1_000_000_000n }),
  ]
  const reuse = { maxAgeMs: DAY_MS }
  const paid = await executeCall(engine, first.request('a', QUESTION, { reuse }))
  const free = await executeCall(engine, second.request('b', QUESTION, { reuse }))
  if (paid.kind !== 'answered' || free.kind !== 'answered') throw new Error('not answered')
  expect(free.answer).toEqual(paid.answer)
  expect(free.callId).not.toBe(paid.callId)
  // Asked again, it is the same call with the same answer.
  expect(await executeCall(engine, second.request('b', QUESTION, { reuse }))).toEqual(free)
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
  const report = await reportOf(world, second)
  expect(report.calls).toMatchObject([{ path: 'b', state: 'answered', reusedFrom: paid.callId, attempts: [] }])
  expect(report.counts).toMatchObject({ calls: 1, attempts: 0, reused: 1 })
  expect(report.totals.map(({ spent }) => spent.amount)).toEqual(['0.000000'])

  // Whoever did not choose it pays for an answer of his own, and so does another question.
  expect(await executeCall(engine, third.request('c', QUESTION))).toMatchObject({ kind: 'answered' })
  expect(await executeCall(engine, third.request('d', `${QUESTION} Say why.`, { reuse }))).toMatchObject({
    kind: 'answered',
  })
  expect(await requestsSeen(world.sandbox)).toHaveLength(3)
  await expectVerified(world)
})

test('an answer that is too old, or of another project, is not used again', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  await executeCall(engine, run.request('a', QUESTION, { reuse: { maxAgeMs: DAY_MS } }))
  await executeCall(engine, run.request('b', QUESTION, { reuse: { maxAgeMs: 0 } }))
  const neighbour = await neighbourOf(world)
  const theirs = await neighbour.openRun({ direct: 1_000_000_000n })
  await executeCall(engine, theirs.request('a', QUESTION, { reuse: { maxAgeMs: DAY_MS } }))
  expect(await requestsSeen(world.sandbox)).toHaveLength(3)
})

async function planOfFirst(world: World, request: CallRequest) {
  const engine = await world.startEngine()
  const result = await executeCall(engine, request)
  const row = await world.db.selectFrom('attempt').selectAll().executeTakeFirst()
  return { result, held: row?.held, plan: row && planSchema.parse(row.plan) }
}

test('a call that may be cut asks for as much output as its share of the free money pays', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 400_000n })
  const body = { messages: [{ role: 'user' as const, content: QUESTION }], maxTokens: 4_000 }
  const tight = { policy: 'clamp', floorTokens: 16, parallelism: 2 } as const
  const { result, held, plan } = await planOfFirst(world, run.request('a', '', { body, tight }))
  expect(result).toMatchObject({ kind: 'answered' })
  expect(plan?.bound).toMatchObject({ clampedFrom: 4_000 })
  expect(held).toBeLessThanOrEqual(200_000n)
  // One token more would not have fitted.
  expect(held).toBeGreaterThan(200_000n - 1_600n)
  expect((await reportOf(world, run)).calls[0]?.attempts[0]?.worstCase).toMatchObject({ clampedFrom: 4_000 })
  await expectVerified(world)
})

test('a call whose share of the free money does not pay its floor asks for its floor, and for no more', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 400_000n })
  const body = { messages: [{ role: 'user' as const, content: QUESTION }], maxTokens: 180 }
  const tight = { policy: 'clamp', floorTokens: 150, parallelism: 2 } as const
  const { result, plan } = await planOfFirst(world, run.request('a', '', { body, tight }))
  expect(result).toMatchObject({ kind: 'answered' })
  expect(plan).toMatchObject({ maxOutputTokens: 150, bound: { clampedFrom: 180 } })
})

test('a call is not cut below its floor, and one that may not be cut is refused, with nothing charged', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 400_000n })
  const engine = await world.startEngine()
  const body = { messages: [{ role: 'user' as const, content: QUESTION }], maxTokens: 4_000 }
  const tight = { policy: 'clamp', floorTokens: 3_000, parallelism: 1 } as const
  expect(await executeCall(engine, run.request('a', '', { body, tight }))).toMatchObject({ kind: 'exhausted' })
  expect(await executeCall(engine, run.request('b', '', { body }))).toMatchObject({ kind: 'exhausted' })
  expect(await requestsSeen(world.sandbox)).toEqual([])
})

test('a prompt is counted by the tokeniser of its model, and the report says how near the hold came', async () => {
  const models = testCatalog.models.map((model) => ({
    ...model,
    routes: model.routes.map((route) => ({ ...route, tokenizer: 'o200k_base' as const })),
  }))
  const world = await createWorld({ catalog: { ...testCatalog, models } })
  const run = await world.openRun({ direct: 1_000_000_000n })
  const content = `${QUESTION} ${'The harbour was dredged by hand. '.repeat(300)}`
  const body = { messages: [{ role: 'user' as const, content }], maxTokens: 40 }
  const { plan } = await planOfFirst(world, run.request('a', '', { body }))
  const [seen] = await world.sandbox.readLog()
  const real = seen?.usage.promptTokens ?? 0
  expect(plan?.bound?.by).toBe('tokenizer')
  expect(plan?.inputTokenBound).toBeGreaterThanOrEqual(real)
  expect(plan?.inputTokenBound).toBeLessThan(real + 40)
  const report = await reportOf(world, run)
  expect(report.calls[0]?.attempts[0]?.worstCase).toMatchObject({ inputBy: 'tokenizer', outputTokens: 40 })
  expect(report.holds).toMatchObject({ attempts: 1 })
  expect(Number(report.holds?.p50)).toBeGreaterThan(0.5)
  expect(Number(report.holds?.most)).toBeLessThanOrEqual(1)
})

test('an answer is told piece by piece, and whole at the end', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const deltas: AnswerDelta[] = []
  const result = await executeCall(engine, run.request('a', QUESTION, { onDelta: (delta) => deltas.push(delta) }))
  if (result.kind !== 'answered') throw new Error('not answered')
  expect(deltas.length).toBeGreaterThan(1)
  expect(deltas.map((delta) => (delta.kind === 'text' ? delta.text : '')).join('')).toBe(result.answer.text)
})

test('a stream that is cut after pieces were told is an error for its listener, and is not begun again', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { cutStreamAfterChunks: 3 })
  const told: AnswerDelta[] = []
  const result = await executeCall(engine, run.request('a', QUESTION, { onDelta: (delta) => told.push(delta) }))
  expect(result).toMatchObject({ kind: 'failed', reason: 'stream_broken' })
  expect(told.length).toBeGreaterThan(0)
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
  const report = await reportOf(world, run)
  expect(report.calls[0]?.attempts).toMatchObject([{ outcome: 'cut_stream', certainty: 'estimated', use: 'wasted' }])
  await expectVerified(world)
})

test('a listener that goes away aborts the request within two seconds, and what was received is settled', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { delayPerChunkMs: 400 })
  const gone = new AbortController()
  const told: AnswerDelta[] = []
  const running = executeCall(
    engine,
    run.request('a', QUESTION, { signal: gone.signal, onDelta: (delta) => void told.push(delta) }),
  )
  await pollUntil(() => told.length >= 2, { what: 'two pieces' })
  const leftAtMs = Date.now()
  gone.abort()
  expect(await running).toMatchObject({ kind: 'failed', reason: 'aborted' })
  const seen = await pollUntil(async () => (await world.sandbox.readLog()).find((each) => each.clientGoneAt), {
    what: 'the abort at the provider',
  })
  expect(Date.parse(seen.clientGoneAt ?? '') - leftAtMs).toBeLessThan(2_000)
  const report = await reportOf(world, run)
  expect(report.calls[0]?.attempts).toMatchObject([{ outcome: 'aborted', certainty: 'estimated' }])
  expect(report.totals.map(({ held }) => held.amount)).toEqual(['0.000000'])
  await expectVerified(world)
})
