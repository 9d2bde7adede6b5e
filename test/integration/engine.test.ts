import { executeCall } from '#calls/execute.ts'
import type { CallResult } from '#calls/call.ts'
import { planSchema } from '#contracts/stored.ts'
import { closeEnvelope, setGate, topUpEnvelope } from '#db/ledger.ts'
import { newId } from '#db/ids.ts'
import { parseDecimal } from '#domain/money.ts'
import { expect, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { createWorld, requestsSeen, type World } from '../support/world.ts'

const PASSAGE =
  '<passage id="p1" source="a.md" title="A">The harbour of Quellim was dredged in 1847 by Mira Tandel.</passage>\n' +
  '<question>When was the harbour of Quellim dredged?</question>'

async function transfersOf(world: World, runId: string) {
  return world.db.selectFrom('transfer').selectAll().where('run_id', '=', runId).orderBy('seq').execute()
}

async function pocketOf(world: World, envelopeId: string, balanceClass = 'direct') {
  const row = await world.db
    .selectFrom('account')
    .selectAll()
    .where('envelope_id', '=', envelopeId)
    .where('balance_class', '=', balanceClass === 'credit' ? 'credit' : 'direct')
    .executeTakeFirstOrThrow()
  return { id: row.id, balance: row.posted_credit - row.posted_debit, held: row.pending_debit }
}

function expectAnswered(result: CallResult) {
  expect(result.kind).toBe('answered')
  if (result.kind !== 'answered') throw new Error('not answered')
  return result
}

test('a call is held before it is sent, captured at exactly what the provider bills, and the rest is released', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const result = expectAnswered(await executeCall(engine, run.request('one', PASSAGE)))
  expect(result.answer.text).toContain('1847')

  const [seen] = await requestsSeen(world.sandbox)
  const billed = parseDecimal(seen?.billed ?? '')
  const rows = await transfersOf(world, run.runId)
  const hold = rows.find((row) => row.code === 'hold')
  const capture = rows.find((row) => row.code === 'capture')
  expect(billed).toEqual({ ok: true, nano: capture?.amount })
  expect(capture).toMatchObject({ pending_id: hold?.id, released: hold?.amount, certainty: 'billed', use: 'useful' })
  expect(hold?.amount).toBeGreaterThan(capture?.amount ?? 0n)
  expect(await pocketOf(world, run.envelopeId)).toMatchObject({
    held: 0n,
    balance: 1_000_000_000n - (capture?.amount ?? 0n),
  })
})

test('a call that has an answer is never sent again', async () => {
  const world = await createWorld()
  const first = await world.startEngine()
  const second = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const before = expectAnswered(await executeCall(first, run.request('one', PASSAGE)))
  const after = expectAnswered(await executeCall(second, run.request('one', PASSAGE)))
  expect(after.answerId).toBe(before.answerId)
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
})

test('64 executors of one call key at once make one provider request', async () => {
  const world = await createWorld()
  const engines = await Promise.all([
    world.startEngine(),
    world.startEngine(),
    world.startEngine(),
    world.startEngine(),
  ])
  const run = await world.openRun({ direct: 1_000_000_000n })
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { delayFirstByteMs: 300 })
  const results = await Promise.all(
    Array.from({ length: 64 }, (_, index) => {
      const engine = engines[index % engines.length]
      if (!engine) throw new Error('no engine')
      return executeCall(engine, run.request('one', PASSAGE))
    }),
  )
  const answers = new Set(results.map((result) => expectAnswered(result).answerId))
  expect(answers.size).toBe(1)
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
  expect((await transfersOf(world, run.runId)).map((row) => row.code)).toEqual(['top_up', 'hold', 'capture'])
})

test('a credit pocket that runs out falls back to direct, and a busy route is retried and then left', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n, credit: 1n })
  const result = await executeCall(engine, run.request('one', PASSAGE, { model: 'research' }))
  const { callId } = expectAnswered(result)
  const attempts = await world.db
    .selectFrom('attempt')
    .selectAll()
    .where('call_id', '=', callId)
    .orderBy('number')
    .execute()
  expect(attempts.map((row) => [row.number, row.outcome])).toEqual([
    [2, 'rate_limited'],
    [3, 'rate_limited'],
    [4, 'answered'],
  ])
  expect(attempts.map((row) => planSchema.parse(row.plan).why)).toEqual(['fallback', 'retry', 'fallback'])
  const refusals = await world.db.selectFrom('refusal').selectAll().where('call_id', '=', callId).execute()
  expect(refusals.map((row) => [row.attempt, row.free])).toEqual([[1, 1n]])
  const codes = (await transfersOf(world, run.runId)).map((row) => row.code)
  expect(codes.filter((code) => code === 'void')).toHaveLength(2)
  expect(codes.filter((code) => code === 'capture')).toHaveLength(1)
})

test('a refused attempt stays refused after a crash and a top-up, the next one is granted, and one request is sent', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000n })
  const crashed = await world.startEngine()
  const denied = await executeCall(crashed, run.request('one', PASSAGE))
  expect(denied).toMatchObject({ kind: 'exhausted', refusal: { limit: 'direct pocket', free: 1_000n } })
  await crashed.stop()
  const refusal = await topUpEnvelope(world.db, world.scope, {
    envelopeId: run.envelopeId,
    fundings: [{ id: newId(Date.now()), balanceClass: 'direct', currency: 'USD', amount: 1_000_000_000n }],
  })
  expect(refusal).toBeUndefined()

  const engine = await world.startEngine()
  const [row] = await world.db.selectFrom('refusal').selectAll().where('run_id', '=', run.runId).execute()
  const replay = await engine.queue.reserve(
    { projectId: world.scope.projectId, accountId: row?.account_id ?? '' },
    {
      holdId: row?.hold_id ?? '',
      callId: row?.call_id ?? '',
      attempt: 1,
      runId: run.runId,
      envelopeId: run.envelopeId,
      amount: 1n,
      tokens: 1n,
      owner: newId(Date.now()),
      plan: {},
    },
    { signal: AbortSignal.timeout(5_000) },
  )
  expect(replay).toMatchObject({ verdict: 'exhausted', replayed: true })
  const { callId } = expectAnswered(await executeCall(engine, run.request('one', PASSAGE)))
  const attempts = await world.db.selectFrom('attempt').select('number').where('call_id', '=', callId).execute()
  expect(attempts).toEqual([{ number: 2 }])
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
})

test('an envelope that is closing aborts the request in flight and settles what was received', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { delayPerChunkMs: 300 })
  const call = executeCall(engine, run.request('one', PASSAGE))
  await pollUntil(async () => (await requestsSeen(world.sandbox)).some((request) => request.begun), {
    what: 'the request',
  })
  await setGate(world.db, world.scope, { envelopeId: run.envelopeId, gate: 'closing', reason: 'test' })
  expect(await call).toMatchObject({ kind: 'gate', gate: 'closing' })
  const rows = await transfersOf(world, run.runId)
  expect(rows.find((row) => row.code === 'capture')).toMatchObject({ certainty: 'estimated', use: 'wasted' })
  expect(await closeEnvelope(world.db, world.scope, { envelopeId: run.envelopeId, reason: 'test' })).toBe('closed')
  expect(await executeCall(engine, run.request('two', PASSAGE))).toMatchObject({ kind: 'gate', gate: 'closed' })
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
})

test.each(['not-json', 'not-completion', 'invalid-sse'] as const)(
  'a provider that answers garbage (%s) costs nothing and is recorded',
  async (garbage) => {
    const world = await createWorld()
    const engine = await world.startEngine()
    const run = await world.openRun({ direct: 1_000_000_000n })
    await world.sandbox.control('PUT', '/faults/sandbox-steady', { garbage })
    const result = await executeCall(engine, run.request('one', PASSAGE))
    expect(result).toMatchObject({ kind: 'failed' })
    const rows = await transfersOf(world, run.runId)
    expect(rows.map((row) => row.code)).toEqual(['top_up', 'hold', 'void'])
    const [attempt] = await world.db.selectFrom('attempt').select('outcome').where('run_id', '=', run.runId).execute()
    expect(attempt?.outcome).toBe('malformed_answer')
  },
)

test('a model without a price is not called', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const result = await executeCall(engine, run.request('one', PASSAGE, { model: 'unpriced' }))
  expect(result).toMatchObject({ kind: 'failed', reason: 'no_route', detail: 'small: no_price' })
  expect(await requestsSeen(world.sandbox)).toHaveLength(0)
})

test('200 calls at once on money for 20 never hold or spend more than there is', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { delayFirstByteMs: 100 })
  const probe = await world.openRun({ direct: 1_000_000_000n })
  await executeCall(engine, probe.request('probe', PASSAGE))
  const [hold] = (await transfersOf(world, probe.runId)).filter((row) => row.code === 'hold')
  const run = await world.openRun({ direct: (hold?.amount ?? 0n) * 20n })
  const results = await Promise.all(
    Array.from({ length: 200 }, (_, index) => executeCall(engine, run.request(`call/${index}`, PASSAGE))),
  )
  const funded = (hold?.amount ?? 0n) * 20n
  for (const row of await transfersOf(world, run.runId)) {
    if (row.debit_balance === null) continue
    const spent = funded - row.debit_balance
    expect(spent + (row.debit_held ?? 0n)).toBeLessThanOrEqual(funded)
  }
  const answered = results.filter((result) => result.kind === 'answered')
  expect(answered.length).toBeGreaterThanOrEqual(20)
  expect(results.every((result) => result.kind === 'answered' || result.kind === 'exhausted')).toBe(true)
  expect((await requestsSeen(world.sandbox)).length).toBe(answered.length + 1)
  expect(await pocketOf(world, run.envelopeId)).toMatchObject({ held: 0n })
})
