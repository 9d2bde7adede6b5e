import { executeCall } from '#calls/execute.ts'
import { connectDatabase } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import { closeEnvelope, deposit, openEnvelope, setGate, topUpEnvelope } from '#db/ledger.ts'
import { readReport } from '#db/report.ts'
import { verifyLedger } from '#db/verify.ts'
import { parseDecimal } from '#domain/money.ts'
import pg from 'pg'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { createWorld, makeKey, requestsSeen } from '../support/world.ts'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'

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

test('not even the owner of the tables can make an account that is none, or bring one below zero', async () => {
  const world = await createWorld()
  await world.openRun({ direct: 5n })
  const owner = connectDatabase({ url: world.database.ownerUrl, maxConnections: 1 })
  const change = (what: string) => sql`update account set ${sql.raw(what)} where kind = 'pocket'`.execute(owner)
  try {
    for (const what of ["kind = 'purse'", "kind = 'wallet'", "currency = 'usd'", "gate = 'ajar'", 'cap = -1'])
      await expect(change(what)).rejects.toThrow(/not well formed/)
    for (const what of [
      'carved = -1',
      'cap = 1, carved = 2',
      "balance_class = 'gold'",
      'balance_class = null',
      'envelope_id = null',
    ])
      await expect(change(what)).rejects.toThrow(/not well formed/)
    for (const what of ['posted_debit = 6', 'pending_debit = 6', 'posted_debit = -1', 'pending_credit = -1'])
      await expect(change(what)).rejects.toThrow(/account_never_negative/)
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
  const apiKeyId = await makeKey(world.db, world.scope)
  const results = await Promise.all(
    Array.from({ length: 8 }, () =>
      world.db
        .transaction()
        .execute(async (trx) => {
          const refusal = await openEnvelope(trx, world.scope, {
            envelopeId: newId(Date.now()),
            runId: newId(Date.now()),
            apiKeyId,
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

test('a closed envelope takes no money, opens no more, and gives its remainder back exactly once', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 10n, credit: 3n })
  const close = { envelopeId: run.envelopeId, reason: 'test' }
  const verdicts = await Promise.all(Array.from({ length: 4 }, () => closeEnvelope(world.db, world.scope, close)))
  expect(new Set(verdicts)).toEqual(new Set(['closed']))
  const returned = await world.db.selectFrom('transfer').select('amount').where('code', '=', 'return').execute()
  expect(new Set(returned.map((row) => row.amount))).toEqual(new Set([10n, 3n]))
  expect(returned).toHaveLength(2)
  expect(await setGate(world.db, world.scope, { ...close, gate: 'open' })).toBe('closed')
  const refusal = await topUpEnvelope(world.db, world.scope, {
    envelopeId: run.envelopeId,
    fundings: [{ id: newId(Date.now()), balanceClass: 'direct', currency: 'USD', amount: 1n }],
  })
  expect(refusal?.reason).toBe('envelope_closed')
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
