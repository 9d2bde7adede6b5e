import { executeCall } from '#calls/execute.ts'
import { takeOver } from '#calls/lost.ts'
import { ledgerId, settlementOf } from '#calls/charge.ts'
import { openAttempts } from '#db/call.ts'
import { connectDatabase } from '#db/database.ts'
import { correct, settle, type SettleItem } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { closeEnvelope, deposit, openEnvelope, setGate, topUpEnvelope } from '#db/ledger.ts'
import { readReport } from '#db/report.ts'
import { verifyLedger } from '#db/verify.ts'
import { parseDecimal } from '#domain/money.ts'
import pg from 'pg'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { createWorld, requestsSeen, type TestRun, type World } from '../support/world.ts'

const QUESTION =
  '<passage id="p1">The mill of Orvane burnt down in 1711.</passage> When did the mill of Orvane burn down?'

async function expectVerified(world: World) {
  const { checks } = await verifyLedger(world.db)
  expect(checks.filter((check) => !check.ok)).toEqual([])
}

async function directPocket(world: World, run: TestRun) {
  return world.db
    .selectFrom('account')
    .selectAll()
    .where('envelope_id', '=', run.envelopeId)
    .where('balance_class', '=', 'direct')
    .executeTakeFirstOrThrow()
}

/** A run with one attempt that is held, marked sent, and open at the provider. */
async function withOpenAttempt(world: World, funded = 1_000_000_000n) {
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: funded })
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { hang: true })
  const controller = new AbortController()
  const call = executeCall(engine, run.request('one', QUESTION, { signal: controller.signal }))
  await pollUntil(async () => (await requestsSeen(world.sandbox)).length === 1, { what: 'the request' })
  const [attempt] = await openAttempts(world.db, world.scope, run.runId)
  if (!attempt) throw new Error('no attempt is open')
  const pocket = { projectId: world.scope.projectId, accountId: attempt.accountId }
  return { engine, run, call, controller, attempt, pocket }
}

function resolution(
  attempt: { runId: string; callId: string; number: number; holdId: string },
  amount: bigint | null,
): SettleItem {
  const key = { runId: attempt.runId, callId: attempt.callId, number: attempt.number }
  return {
    holdId: attempt.holdId,
    resolutionId: ledgerId(key, 'resolution'),
    overageId: ledgerId(key, 'overage'),
    debtId: ledgerId(key, 'debt'),
    amount,
    certainty: amount === null ? null : 'estimated',
    outcome: 'aborted',
    detail: null,
    usage: null,
    answerId: null,
    answer: null,
  }
}

test("the application's role cannot change, delete or forge a ledger row", async () => {
  const world = await createWorld()
  await world.openRun({ direct: 5n })
  const refused = [
    sql`update transfer set amount = 1`,
    sql`delete from transfer`,
    sql`truncate transfer`,
    sql`insert into transfer (id, project_id, code, debit_account, credit_account, currency, amount)
      values (uuidv7(), uuidv7(), 'deposit', uuidv7(), uuidv7(), 'USD', 1)`,
    sql`update account set posted_credit = 10`,
    sql`update envelope set gate = 'open'`,
    sql`delete from refusal`,
    sql`update attempt set outcome = null`,
    sql`update price set output_nano_per_million = 0`,
    sql`select post_transfer(uuidv7(), ${world.scope.projectId}, 'deposit', uuidv7(), uuidv7(), 1)`,
    sql`alter table transfer disable trigger all`,
  ]
  for (const statement of refused)
    await expect(statement.execute(world.db)).rejects.toThrow(/permission denied|must be owner/)
})

test('not even the owner of the tables can change a ledger row', async () => {
  const world = await createWorld()
  await world.openRun({ direct: 5n })
  const owner = connectDatabase({ url: world.database.ownerUrl, maxConnections: 1 })
  try {
    await expect(sql`update transfer set amount = 1`.execute(owner)).rejects.toThrow(/append-only/)
    await expect(sql`delete from transfer`.execute(owner)).rejects.toThrow(/append-only/)
    await expect(sql`truncate transfer`.execute(owner)).rejects.toThrow(/append-only/)
  } finally {
    await owner.destroy()
  }
})

test('verify names the row that a superuser edited', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  await executeCall(engine, run.request('one', QUESTION))
  await expectVerified(world)
  const capture = await world.db
    .selectFrom('transfer')
    .select('id')
    .where('code', '=', 'capture')
    .executeTakeFirstOrThrow()
  const admin = new pg.Client(world.database.adminUrl)
  await admin.connect()
  try {
    await admin.query('set session_replication_role = replica')
    await admin.query('update transfer set amount = amount - 1 where id = $1', [capture.id])
  } finally {
    await admin.end()
  }
  const { ok, checks } = await verifyLedger(world.db)
  expect(ok).toBe(false)
  const wrong = checks.filter((check) => !check.ok).map((check) => check.name)
  expect(wrong).toEqual(['fold', 'never negative', 'prices'])
  expect(checks.find((check) => check.name === 'never negative')?.firstWrong).toContain(capture.id)
})

test('a deposit happens once per reference, and another one under its reference is refused', async () => {
  const world = await createWorld()
  const wallet = await world.db.selectFrom('wallet').select('id').executeTakeFirstOrThrow()
  const request = {
    walletId: wallet.id,
    balanceClass: 'direct',
    currency: 'USD',
    amount: 7n,
    reference: 'r-1',
  } as const
  const verdicts = await Promise.all(
    Array.from({ length: 10 }, () => deposit(world.db, world.scope, { ...request, id: newId(Date.now()) })),
  )
  expect(verdicts.filter((each) => each.verdict === 'deposited')).toHaveLength(1)
  expect(verdicts.filter((each) => each.verdict === 'replayed')).toHaveLength(9)
  const other = await deposit(world.db, world.scope, { ...request, id: newId(Date.now()), amount: 8n })
  expect(other.verdict).toBe('reference_mismatch')
  const foreign = await deposit(
    world.db,
    { projectId: newId(Date.now()) },
    { ...request, id: newId(Date.now()), reference: 'r-2' },
  )
  expect(foreign.verdict).toBe('unknown_wallet')
  await expectVerified(world)
})

test('of many envelopes at once, only those that the wallet covers are opened', async () => {
  const world = await createWorld()
  const amount = 300_000_000_000n
  const results = await Promise.all(
    Array.from({ length: 8 }, () =>
      world.db
        .transaction()
        .execute(async (trx) => {
          const refusal = await openEnvelope(trx, world.scope, {
            envelopeId: newId(Date.now()),
            runId: newId(Date.now()),
            fundings: [{ id: newId(Date.now()), balanceClass: 'direct', currency: 'USD', amount }],
          })
          if (refusal) throw new Error(refusal.reason)
          return 'opened'
        })
        .catch((error: unknown) => (error instanceof Error ? error.message : 'unknown')),
    ),
  )
  expect(results.filter((each) => each === 'opened')).toHaveLength(3)
  expect(results.filter((each) => each === 'wallet_short')).toHaveLength(5)
  await expectVerified(world)
})

test('settling again with the same facts replays, with another amount is refused, and nothing moves twice', async () => {
  const world = await createWorld()
  const { attempt, pocket, controller, call, run } = await withOpenAttempt(world)
  const item = resolution(attempt, 100n)
  const once = await settle(world.db, pocket, { items: [item], mode: 'owner' })
  const again = await settle(world.db, pocket, { items: [item], mode: 'owner' })
  const other = await settle(world.db, pocket, { items: [{ ...item, amount: 99n }], mode: 'owner' })
  const foreign = await settle(world.db, { ...pocket, projectId: newId(Date.now()) }, { items: [item], mode: 'owner' })
  expect([once, again, other, foreign].map(([answer]) => answer?.verdict)).toEqual([
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
  const truth = {
    holdId: attempt.holdId,
    correctionId: ledgerId(attempt, 'correction'),
    debtId: ledgerId(attempt, 'debt'),
    amount: 40n,
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
  controller.abort()
  await call.catch(() => {})
  await expectVerified(world)
})

test('what a provider bills above the hold takes free money first, the rest is a debt that blocks new envelopes until a deposit pays it', async () => {
  const world = await createWorld()
  const { attempt, pocket, controller, call } = await withOpenAttempt(world)
  const account = await world.db
    .selectFrom('account')
    .selectAll()
    .where('id', '=', pocket.accountId)
    .executeTakeFirstOrThrow()
  const funded = account.posted_credit
  const [answer] = await settle(world.db, pocket, { items: [resolution(attempt, funded + 50n)], mode: 'owner' })
  expect(answer?.verdict).toBe('settled')
  const { rows } = await sql<{ debt: bigint }>`select project_debt(${world.scope.projectId}, 'USD') as debt`.execute(
    world.db,
  )
  expect(rows[0]?.debt).toBe(50n)
  await expect(world.openRun({ direct: 1n })).rejects.toThrow('debt_outstanding')
  const report = await readReport(world.db, world.scope, attempt.runId)
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

test('a closed envelope takes no money, opens no more, and gives its remainder back exactly once', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 10n, credit: 3n })
  const close = { envelopeId: run.envelopeId, reason: 'test' }
  const verdicts = await Promise.all(Array.from({ length: 4 }, () => closeEnvelope(world.db, world.scope, close)))
  expect(new Set(verdicts)).toEqual(new Set(['closed']))
  const returned = await world.db.selectFrom('transfer').select('amount').where('code', '=', 'return').execute()
  expect(returned.map((row) => row.amount).toSorted()).toEqual([10n, 3n])
  expect(await setGate(world.db, world.scope, { ...close, gate: 'open' })).toBe('closed')
  const refusal = await topUpEnvelope(world.db, world.scope, {
    envelopeId: run.envelopeId,
    fundings: [{ id: newId(Date.now()), balanceClass: 'direct', currency: 'USD', amount: 1n }],
  })
  expect(refusal?.reason).toBe('envelope_closed')
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
  expect(results[0]?.kind).toBe('answered')
  expect(results.every((result) => result.kind === 'answered' || result.kind === 'exhausted')).toBe(true)
  await expectVerified(world)
})

test("a run's report equals the sum of its transfers and, where billed, the provider's own bill", async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n, credit: 2_000_000n })
  await Promise.all(
    Array.from({ length: 12 }, (_, index) =>
      executeCall(engine, run.request(`call/${index}`, QUESTION, { model: 'research' })),
    ),
  )
  const report = await readReport(world.db, world.scope, run.runId)
  const nano = (text: string) => {
    const parsed = parseDecimal(text)
    if (!parsed.ok) throw new Error(text)
    return parsed.nano
  }
  const total = (report?.totals ?? []).reduce((sum, each) => sum + nano(each.spent.amount), 0n)
  const billed = (await requestsSeen(world.sandbox)).reduce((sum, each) => sum + nano(each.billed), 0n)
  const captured = await world.db.selectFrom('transfer').select('amount').where('code', '=', 'capture').execute()
  expect(total).toBe(captured.reduce((sum, row) => sum + row.amount, 0n))
  expect(total).toBe(billed)
  expect(report?.counts).toMatchObject({ calls: 12 })
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
    prices: {
      inputNanoPerMillion: 10n ** 9n,
      cachedInputNanoPerMillion: 10n ** 9n,
      outputNanoPerMillion: 10n ** 9n,
      perCallNano: 0n,
    },
    inputTokenBound: 50,
    maxOutputTokens: 10,
    timeoutMs: 1,
    why: 'first' as const,
    after: null,
    skipped: [],
  }
  const received = { text: 'x'.repeat(500), finishReason: null, usage: null, providerRequestId: null }
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
  expect(item).toMatchObject({ amount: 40_000n, certainty: 'estimated' })
})
