import { connectDatabase } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import { closeEnvelope, deposit, topUpEnvelope } from '#db/ledger.ts'
import { expireLots } from '#db/lot.ts'
import { createQuote } from '#db/quote.ts'
import { refund } from '#db/refund.ts'
import { reverseDeposit } from '#db/reversal.ts'
import fc from 'fast-check'
import { sql } from 'kysely'
import { expect, onTestFinished, test } from 'vitest'
import { somebodyWaits, startProcess } from '../support/storm.ts'
import { asAdmin, expectLotsTrue, fund, funding, grantLot, letExpire, walletOf } from '../support/wallets.ts'
import { createWorld } from '../support/world.ts'

const CONNECTIONS = 16
const ROUNDS = 6
const PER_ROUND = 48

test('everything at once, from sixteen connections: nothing throws, nothing deadlocks, every lot stays true', async () => {
  const base = await createWorld()
  const db = connectDatabase({ url: base.database.appUrl, maxConnections: CONNECTIONS })
  onTestFinished(() => db.destroy())
  const world = { ...base, db }
  const { scope } = world
  const walletId = await walletOf(world)
  const { organisation_id: organisationId } = await db
    .selectFrom('project')
    .select('organisation_id')
    .executeTakeFirstOrThrow()
  const rate = { sellCurrency: 'CNY', sell: 7n, buyCurrency: 'EUR', buy: 1n }
  await createQuote(db, organisationId, {
    ...rate,
    source: 'test',
    effectiveAt: null,
    expiresAt: null,
    nowMs: Date.now(),
  })
  const envelopes: string[] = []
  const deposits: { readonly depositId: string; readonly lotId: string }[] = []
  const one = <Item>(items: readonly Item[], pick: number) => items[pick % Math.max(items.length, 1)]
  const refusable = (error: unknown) => {
    expect(error).toMatchObject({ message: expect.stringMatching(/^(wallet_short|debt_outstanding|invalid_amount)$/) })
  }
  const moves: readonly ((amount: bigint, pick: number) => Promise<unknown>)[] = [
    async (amount, pick) => deposits.push(await grantLot(world, amount, { priority: pick % 3 })),
    async (amount) => deposits.push(await grantLot(world, amount * 7n, { currency: 'CNY' })),
    (amount) =>
      deposit(db, scope, {
        id: newId(Date.now()),
        walletId,
        balanceClass: 'direct',
        currency: 'EUR',
        amount,
        reference: newId(Date.now()),
      }),
    (amount) =>
      fund(world, funding(amount), funding(amount * 7n, { currency: 'CNY', exchangeTo: 'EUR' })).then(
        (id) => envelopes.push(id),
        refusable,
      ),
    (amount) => fund(world, funding(amount)).then((id) => envelopes.push(id), refusable),
    async (amount, pick) => {
      const envelopeId = one(envelopes, pick)
      if (envelopeId) await topUpEnvelope(db, scope, { envelopeId, fundings: [funding(amount)] })
    },
    async (_amount, pick) => {
      const envelopeId = one(envelopes, pick)
      if (envelopeId) expect(await closeEnvelope(db, scope, { envelopeId, reason: 'test' })).toBe('closed')
    },
    () => expireLots(db),
    async (_amount, pick) => {
      const due = one(deposits, pick)
      if (due && pick % 4 === 0) await letExpire(world, due.lotId)
    },
    async (_amount, pick) => {
      const known = one(deposits, pick)
      const shortfall = pick % 2 === 0 ? 'owe' : 'refuse'
      if (known && pick % 5 === 0) await reverseDeposit(db, scope, { ...known, id: newId(Date.now()), shortfall })
    },
    (amount) =>
      refund(db, scope, {
        id: newId(Date.now()),
        walletId,
        balanceClass: 'direct',
        currency: 'EUR',
        amount,
        reference: newId(Date.now()),
      }),
  ]
  const [plan = []] = fc.sample(
    fc.array(fc.tuple(fc.nat({ max: 10 }), fc.bigInt({ min: 1n, max: 1_000n }), fc.nat({ max: 999 })), {
      minLength: ROUNDS * PER_ROUND,
      maxLength: ROUNDS * PER_ROUND,
    }),
    1,
  )
  for (let round = 0; round < ROUNDS; round += 1) {
    const turn = plan.slice(round * PER_ROUND, (round + 1) * PER_ROUND)
    await Promise.all(turn.map(async ([move, amount, pick]) => moves[move]?.(amount, pick)))
    await expectLotsTrue(world)
  }
})

test('a deposit and a sweep that both make the counterparties of an old project do not wait for each other', async () => {
  const world = await createWorld()
  const { lotId } = await grantLot(world, 100n)
  await letExpire(world, lotId)
  // A project from before lots had no such accounts.
  await asAdmin(world, `delete from account where kind in ('breakage', 'exchange') and currency = 'EUR'`)
  const { db } = await startProcess(world.database.adminUrl)
  const { broken, granting } = await db.transaction().execute(async (trx) => {
    await sql`select from account where kind = 'wallet' and currency = 'EUR' for no key update`.execute(trx)
    const granting = grantLot(world, 5n)
    await somebodyWaits(db)
    return { broken: await expireLots(trx), granting }
  })
  expect(broken).toBe(1)
  await granting
  await expectLotsTrue(world)
})
