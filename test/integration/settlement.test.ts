import { executeCall } from '#calls/execute.ts'
import { takeOver } from '#calls/lost.ts'
import { reservePatiently } from '#calls/attempt.ts'
import { settlementOf } from '#calls/charge.ts'
import { openAttempts } from '#db/call.ts'
import { connectDatabase } from '#db/database.ts'
import { correct } from '#db/correction.ts'
import { settle, type SettleItem } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { createLedgerQueue, type LedgerQueue } from '#db/ledger-queue.ts'
import { closeEnvelope, deposit, setGate, topUpEnvelope } from '#db/ledger.ts'
import { readReport } from '#db/report.ts'
import { plainPrices } from '#domain/pricing.ts'
import { NOTHING_RECEIVED } from '#providers/provider.ts'
import { sql } from 'kysely'
import { expect, onTestFinished, test } from 'vitest'
import { forever, holdOf, openCalls, pocketOf, settlementOf as settling, startProcess } from '../support/storm.ts'
import { createWorld } from '../support/world.ts'
import { expectVerified, directPocket, QUESTION, resolution, withOpenAttempt } from '../support/open-attempt.ts'

test('settling again with the same facts replays, with another amount is refused, and nothing moves twice', async () => {
  const world = await createWorld()
  const { attempt, pocket, controller, call, run } = await withOpenAttempt(world)
  const item = resolution(attempt, 100n)
  const once = await settle(world.db, pocket, { item, mode: 'owner' })
  const again = await settle(world.db, pocket, { item, mode: 'owner' })
  const other = await settle(world.db, pocket, { item: { ...item, amount: 99n }, mode: 'owner' })
  const foreign = await settle(world.db, { ...pocket, projectId: newId(Date.now()) }, { item, mode: 'owner' })
  expect([once, again, other, foreign].map((answer) => answer.verdict)).toEqual([
    'settled',
    'replayed',
    'mismatch',
    'unknown_hold',
  ])
  const account = await directPocket(world, run)
  expect([account.posted_debit, account.pending_debit]).toEqual([100n, 0n])
  controller.abort()
  await call.catch(() => {})
  await expectVerified(world)
})

test('a settlement replayed with another certainty, other tokens or another answer is refused', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000n })
  const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
  const { queue } = await startProcess(world.database.appUrl)
  const [silent, answered, voided] = await openCalls(world.db, world.scope, { ...run, count: 3 })
  if (!silent || !answered || !voided) throw new Error('three calls were opened')
  const told = async (item: SettleItem) => (await queue.settle(pocket, item)).verdict
  const items = {
    silent: { ...settling(silent, 30n), tokens: 7n },
    answered: settling(answered, 30n, { answer: 'the answer' }),
    voided: settling(voided, null),
  }
  for (const call of [silent, answered, voided]) await queue.reserve(pocket, holdOf(call, 100n), forever())
  for (const item of Object.values(items)) expect(await told(item)).toBe('settled')
  for (const item of Object.values(items)) expect(await told(item)).toBe('replayed')
  const poisoned: readonly SettleItem[] = [
    { ...items.silent, certainty: 'billed' },
    { ...items.silent, tokens: 8n },
    { ...items.silent, tokens: null },
    settling(silent, 30n, { answer: 'poison' }),
    { ...items.answered, answerId: null, answer: null },
    { ...items.answered, answerId: newId(Date.now()) },
    { ...items.answered, answer: { text: 'poison', finishReason: 'stop' } },
    { ...items.voided, amount: 0n, certainty: 'estimated' },
  ]
  for (const item of poisoned) expect({ item, verdict: await told(item) }).toEqual({ item, verdict: 'mismatch' })
  const truth = {
    ...items.silent,
    correctionId: newId(Date.now()),
    amount: 20n,
    tokens: 3n,
    certainty: 'estimated' as const,
  }
  expect(await correct(world.db, pocket, truth)).toBe('corrected')
  expect(await told(items.silent)).toBe('replayed')
  await expectVerified(world)
})

test('an attempt that was sent is not voided because an earlier executor of its call gave up its hold', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000n })
  const [call] = await openCalls(world.db, world.scope, { ...run, count: 1 })
  if (!call) throw new Error('a call was opened')
  const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
  const first = holdOf(call, 100n, { owner: newId(Date.now()) })
  const until = { signal: new AbortController().signal, deadlineMs: 0 }
  const away = startLedgerQueueAway(world.database.appUrl)
  await expect(reservePatiently({ ...engine, queue: away }, { pocket, item: first }, until)).rejects.toThrow()
  const second = holdOf(call, 100n, { owner: newId(Date.now()) })
  engine.instance.owners.add(second.owner)
  expect(await reservePatiently(engine, { pocket, item: second }, until)).toMatchObject({ verdict: 'granted' })
  const [attempt] = await openAttempts(world.db, world.scope, run.runId)
  expect(attempt && (await takeOver(engine, world.scope, attempt))).toBe('settled')
  const settled = await world.db.selectFrom('attempt').select('outcome').execute()
  expect(settled).toEqual([{ outcome: 'lost' }])
  const captured = await world.db.selectFrom('transfer').select('amount').where('code', '=', 'capture').execute()
  expect(captured).toEqual([{ amount: 100n }])
  await expectVerified(world)
})

test('a hold whose executor gave up before it knew is voided: it was not sent', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000n })
  const [call] = await openCalls(world.db, world.scope, { ...run, count: 1 })
  if (!call) throw new Error('a call was opened')
  const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
  const item = holdOf(call, 100n)
  engine.instance.owners.add(item.owner)
  const until = { signal: new AbortController().signal, deadlineMs: 0 }
  expect((await engine.queue.reserve(pocket, item, until)).verdict).toBe('granted')
  const away = startLedgerQueueAway(world.database.appUrl)
  await expect(reservePatiently({ ...engine, queue: away }, { pocket, item }, until)).rejects.toThrow()
  const [attempt] = await openAttempts(world.db, world.scope, run.runId)
  expect(attempt && (await takeOver(engine, world.scope, attempt))).toBe('settled')
  const settled = await world.db.selectFrom('attempt').select('outcome').execute()
  expect(settled).toEqual([{ outcome: 'not_sent' }])
  await expectVerified(world)
})

test('a living owner is not overtaken, a dead one is: its hold is booked as unknown, once', async () => {
  const world = await createWorld()
  const { engine, attempt, run, controller, call } = await withOpenAttempt(world)
  const other = await world.startEngine()
  expect(await takeOver(other, world.scope, attempt)).toBe('owner_alive')
  await engine.instance.stop()
  const verdicts = await Promise.all(Array.from({ length: 5 }, () => takeOver(other, world.scope, attempt)))
  expect(verdicts.filter((verdict) => verdict === 'settled')).toHaveLength(1)
  const report = await readReport(world.db, world.scope, run.runId)
  expect(report?.calls[0]?.attempts[0]).toMatchObject({ outcome: 'lost', certainty: 'unknown', use: 'wasted' })
  expect(report?.totals[0]?.unknown).toEqual(report?.totals[0]?.spent)
  controller.abort()
  await call.catch(() => {})
  await expectVerified(world)
})

test.each([
  { home: 'the pocket', closed: false },
  { home: 'the wallet, once the envelope is closed', closed: true },
])('late truth is a correction: the difference goes back to $home', async ({ closed }) => {
  const world = await createWorld()
  const { engine, attempt, run, pocket, controller, call } = await withOpenAttempt(world)
  const other = await world.startEngine()
  await engine.instance.stop()
  await takeOver(other, world.scope, attempt)
  if (closed) {
    await setGate(world.db, world.scope, { envelopeId: run.envelopeId, gate: 'closing', reason: 'test' })
    expect(await closeEnvelope(world.db, world.scope, { envelopeId: run.envelopeId, reason: 'test' })).toBe('closed')
  }
  // The late owner says what it knows first: a gate that closes ends its request as well.
  controller.abort()
  await call.catch(() => {})
  const truth = {
    holdId: attempt.holdId,
    correctionId: newId(Date.now()),
    debtId: newId(Date.now()),
    amount: 40n,
    tokens: 4n,
    certainty: 'estimated' as const,
    usage: null,
    detail: null,
    answerId: null,
    answer: null,
  }
  expect(await correct(world.db, pocket, truth)).toBe('corrected')
  expect(await correct(world.db, pocket, truth)).toBe('replayed')
  const report = await readReport(world.db, world.scope, run.runId)
  expect(report?.totals[0]?.spent.amount).toBe('0.00000004')
  expect(report?.envelope.pockets[0]?.free.amount).toBe(closed ? '0.000000' : '0.99999996')
  await expectVerified(world)
})

test('what a provider bills above the hold takes free money first, the rest is a debt that blocks new envelopes until a deposit pays it', async () => {
  const world = await createWorld()
  const { attempt, pocket, controller, call, run } = await withOpenAttempt(world)
  const account = await world.db
    .selectFrom('account')
    .selectAll()
    .where('id', '=', pocket.accountId)
    .executeTakeFirstOrThrow()
  const funded = account.posted_credit
  const answer = await settle(world.db, pocket, { item: resolution(attempt, funded + 50n), mode: 'owner' })
  expect(answer.verdict).toBe('settled')
  const { rows } = await sql<{ debt: bigint }>`select project_debt(${world.scope.projectId}, 'USD') as debt`.execute(
    world.db,
  )
  expect(rows[0]?.debt).toBe(50n)
  await expect(world.openRun({ direct: 1n })).rejects.toThrow('debt_outstanding')
  const more = { id: newId(Date.now()), balanceClass: 'direct', currency: 'USD', amount: 5n } as const
  expect(await topUpEnvelope(world.db, world.scope, { envelopeId: run.envelopeId, fundings: [more] })).toBeUndefined()
  const report = await readReport(world.db, world.scope, run.runId)
  expect(report?.calls[0]?.attempts[0]?.charged.amount).toBe('1.00000005')
  const wallet = await world.db.selectFrom('wallet').select('id').executeTakeFirstOrThrow()
  const paid = await deposit(world.db, world.scope, {
    id: newId(Date.now()),
    walletId: wallet.id,
    balanceClass: 'direct',
    currency: 'USD',
    amount: 100n,
    reference: 'settles-the-debt',
  })
  expect(paid.debtPaid).toBe(50n)
  await world.openRun({ direct: 1n })
  controller.abort()
  await call.catch(() => {})
  await expectVerified(world)
})

test('an envelope with an open hold does not close, and a hold that does not fit yet waits its turn', async () => {
  const world = await createWorld()
  const probe = await withOpenAttempt(world)
  const close = { envelopeId: probe.run.envelopeId, reason: 'test' }
  expect(await closeEnvelope(world.db, world.scope, close)).toBe('open_holds')
  probe.controller.abort()
  await probe.call
  const engine = await world.startEngine()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { delayFirstByteMs: 150 })
  const run = await world.openRun({ direct: probe.attempt.held + 1n })
  const calls = ['a', 'b', 'c'].map((path) => executeCall(engine, run.request(path, QUESTION)))
  const results = await Promise.all(calls)
  // Which of them comes first is not said: each reads its catalog on its way.
  expect(results.some((result) => result.kind === 'answered')).toBe(true)
  expect(results.every((result) => result.kind === 'answered' || result.kind === 'exhausted')).toBe(true)
  await expectVerified(world)
})

test('the charge of an attempt without usage is an estimate within its hold', () => {
  const plan = {
    route: 'r',
    provider: 'p',
    upstreamModel: 'm',
    balanceClass: 'direct' as const,
    currency: 'USD',
    priceId: newId(0),
    prices: plainPrices({ inputNanoPerMillion: 10n ** 9n, outputNanoPerMillion: 10n ** 9n }),
    inputTokenBound: 50,
    maxOutputTokens: 10,
    timeoutMs: 1,
    why: 'first' as const,
    after: null,
    skipped: [],
  }
  const received = { ...NOTHING_RECEIVED, text: 'x'.repeat(500) }
  const key = { runId: newId(0), callId: newId(0), number: 1 }
  const context = {
    plan,
    body: { messages: [{ role: 'user' as const, content: 'y'.repeat(90) }], maxTokens: 10 },
    held: 60_000n,
  }
  const item = settlementOf(
    key,
    { outcome: 'cut_stream', sent: true, detail: '', httpStatus: null, retryAfterMs: null, received },
    context,
  )
  expect(item).toMatchObject({ amount: 60_000n, certainty: 'estimated' })
})

/** The queue of a process that has lost its database: nothing listens there. */
function startLedgerQueueAway(url: string): LedgerQueue {
  const nowhere = new URL(url)
  nowhere.port = '1'
  const db = connectDatabase({ url: nowhere.href, maxConnections: 1 })
  onTestFinished(() => db.destroy())
  return createLedgerQueue({ db, instanceId: newId(Date.now()) })
}
