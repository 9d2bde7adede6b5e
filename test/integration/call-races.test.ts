import { lostSettlementOf } from '#calls/charge.ts'
import { executeCall } from '#calls/execute.ts'
import { lookUpAttempts } from '#calls/look-up.ts'
import { startEngine } from '#calls/start-engine.ts'
import { openAttempts } from '#db/call.ts'
import { settle } from '#db/hold.ts'
import { readReport } from '#db/report.ts'
import { NO_USAGE } from '#domain/pricing.ts'
import { createOpenAiCompatible } from '#providers/openai-compatible.ts'
import type { LookedUp, Provider } from '#providers/provider.ts'
import { expect, onTestFinished, test } from 'vitest'
import { createLedgerWorld, type LedgerWorld } from '../support/envelopes.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { tamper } from '../support/tamper.ts'
import { createWorld, requestsSeen, type TestRun, type World } from '../support/world.ts'

const QUESTION = '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?'

const slow = (world: World, delayFirstByteMs: number) =>
  world.sandbox.control('PUT', '/faults/sandbox-steady', { delayFirstByteMs })

const untilSeen = (world: World, count: number) =>
  pollUntil(async () => (await requestsSeen(world.sandbox)).length === count, { what: `request ${count}` })

/** Resolves a run's open attempt as lost, as another process does that believes its owner dead. */
async function loseAttempt(world: World, run: TestRun): Promise<void> {
  const [attempt] = await openAttempts(world.db, world.scope, run.runId)
  if (!attempt) throw new Error('no attempt is open')
  const evidence = { providerRequestId: attempt.requestId ?? 'gen-1', message: 'the answer died with its process' }
  const cost = { amount: attempt.held, certainty: 'unknown', basis: 'the whole hold', share: null } as const
  const pocket = { ...world.scope, accountId: attempt.accountId }
  const { verdict } = await settle(world.db, pocket, { item: lostSettlementOf(attempt, cost, evidence), mode: 'owner' })
  expect(verdict).toBe('settled')
}

test('an answer that comes second, after a late one, is not returned: a call has one answer', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const [late, second] = [await world.startEngine(), await world.startEngine()]
  await slow(world, 1_500)
  const lateCall = executeCall(late, run.request('one', QUESTION))
  await untilSeen(world, 1)
  await loseAttempt(world, run)
  await slow(world, 3_000)
  const secondCall = executeCall(second, run.request('one', QUESTION))
  await untilSeen(world, 2)
  const results = await Promise.all([lateCall, secondCall])
  expect(results[0]).toMatchObject({ kind: 'answered' })
  expect(results[1]).toEqual(results[0])
  await expectVerified(world)
})

/** An engine whose provider can tell what became of a request. */
async function startAskingEngine(world: World, lookUp: (id: string) => Promise<LookedUp>) {
  const provider: Provider = {
    ...createOpenAiCompatible({
      name: 'sandbox',
      baseUrl: world.sandbox.url,
      apiKey: 'sandbox-key',
      nowMs: () => Date.now(),
    }),
    lookUp,
  }
  const engine = await startEngine({
    db: world.db,
    databaseUrl: world.database.appUrl,
    kind: 'test',
    providers: [provider],
  })
  onTestFinished(() => engine.stop())
  return engine
}

test('an answer that comes after its cost was looked up is kept, and charged as it says', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const usage = { ...NO_USAGE, input: 30, output: 7 }
  const engine = await startAskingEngine(world, async () => ({ kind: 'found', usage }))
  await slow(world, 2_000)
  const call = executeCall(engine, run.request('one', QUESTION))
  await untilSeen(world, 1)
  await loseAttempt(world, run)
  await lookUpAttempts(engine)
  expect(await call).toMatchObject({ kind: 'answered' })
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
  const attempt = await world.db.selectFrom('attempt').selectAll().executeTakeFirstOrThrow()
  expect(attempt.detail).toMatchObject({ lookedUp: 'found', lateOutcome: 'answered' })
  await expectVerified(world)
})

test('a call goes on after a pause that was longer than its requests may take together', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const engine = await world.startEngine()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { rateLimit: true, retryAfterMs: 2_000, times: 1 })
  // Its route may take two minutes: there is time for one request, and for no other after the wait.
  const deadlineMs = Date.now() + 122_000
  expect(await executeCall(engine, run.request('one', QUESTION, { deadlineMs }))).toMatchObject({ kind: 'waiting' })
  await tamper(
    world,
    `update attempt set sent_at = sent_at - interval '2 hours', resolved_at = resolved_at - interval '2 hours'`,
  )
  expect(await executeCall(engine, run.request('one', QUESTION))).toMatchObject({ kind: 'answered' })
})

test('what was looked up stands when its owner comes late with an estimate only', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const usage = { ...NO_USAGE, input: 30, output: 7 }
  const engine = await startAskingEngine(world, async () => ({ kind: 'found', usage }))
  await slow(world, 20_000)
  const gone = new AbortController()
  const call = executeCall(engine, run.request('one', QUESTION, { signal: gone.signal }))
  await untilSeen(world, 1)
  await loseAttempt(world, run)
  await lookUpAttempts(engine)
  gone.abort()
  expect(await call).toMatchObject({ kind: 'failed', reason: 'aborted' })
  const report = await readReport(world.db, world.scope, run.runId)
  expect(report?.calls[0]?.attempts).toMatchObject([{ outcome: 'lost', certainty: 'billed' }])
  await expectVerified(world)
})

test('what a provider tells stands over the estimate of an owner that came late', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const usage = { ...NO_USAGE, input: 30, output: 7 }
  let isKnown = false
  const engine = await startAskingEngine(world, async () => (isKnown ? { kind: 'found', usage } : { kind: 'not_yet' }))
  await slow(world, 20_000)
  const gone = new AbortController()
  const call = executeCall(engine, run.request('one', QUESTION, { signal: gone.signal }))
  await untilSeen(world, 1)
  await loseAttempt(world, run)
  gone.abort()
  expect(await call).toMatchObject({ kind: 'failed', reason: 'aborted' })
  const attempts = async () => (await readReport(world.db, world.scope, run.runId))?.calls[0]?.attempts
  expect(await attempts()).toMatchObject([{ outcome: 'lost', certainty: 'estimated' }])
  isKnown = true
  await lookUpAttempts(engine)
  expect(await attempts()).toMatchObject([{ outcome: 'lost', certainty: 'billed', tokens: { input: 30, output: 7 } }])
  await expectVerified(world)
})

/** Attempts that are lost, of calls whose provider can be asked about them. */
async function loseMany(world: LedgerWorld, count: number): Promise<readonly string[]> {
  const root = await world.openRoot(1_000n)
  const cost = { amount: 1n, certainty: 'unknown', basis: 'the whole hold', share: null } as const
  const ids = Array.from({ length: count }, (_, index) => `gen-${index}`)
  for (const providerRequestId of ids) {
    const item = await world.hold(root, 1n)
    const found = { runId: root.runId, callId: item.callId, number: item.attempt, holdId: item.holdId }
    await settle(world.db, root.pocket, { item: lostSettlementOf(found, cost, { providerRequestId }), mode: 'owner' })
  }
  return ids
}

test('an attempt is asked about, however many others their provider does not know yet', async () => {
  const world = await createLedgerWorld()
  const ids = await loseMany(world, 60)
  const asked = new Set<string>()
  const engine = await startAskingEngine(world, async (id) => {
    asked.add(id)
    return { kind: 'not_yet' }
  })
  for (let turn = 0; turn < 40 && asked.size < ids.length; turn += 1) await lookUpAttempts(engine)
  expect(asked.size).toBe(ids.length)
})

test('an attempt is asked about until its provider tells, though that takes longer than ten minutes', async () => {
  const world = await createLedgerWorld()
  await loseMany(world, 1)
  await tamper(world, `update attempt set resolved_at = resolved_at - interval '11 minutes'`)
  let answers = 0
  const engine = await startAskingEngine(world, async () => {
    answers += 1
    return answers < 3 ? { kind: 'not_yet' } : { kind: 'found', usage: { ...NO_USAGE, input: 1 } }
  })
  for (let turn = 0; turn < 500 && answers < 3; turn += 1) await lookUpAttempts(engine)
  expect(answers).toBe(3)
})
