import { executeCall } from '#calls/execute.ts'
import { topUpEnvelope } from '#db/ledger.ts'
import { createQuote, type Rate } from '#db/quote.ts'
import { readReport } from '#db/report.ts'
import { getRun } from '#db/run-read.ts'
import { expireLots } from '#db/lot.ts'
import fc from 'fast-check'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { QUESTION } from '../support/open-attempt.ts'
import {
  close,
  expectLotsTrue,
  freeOf,
  fund,
  funding,
  grantLot,
  letExpire,
  sendHome,
  spend,
} from '../support/wallets.ts'
import { createWorld, type World } from '../support/world.ts'

const seven: Rate = { sellCurrency: 'CNY', sell: 7n, buyCurrency: 'USD', buy: 1n }

test('what is sold buys its worth rounded down, and comes back whole when nothing was spent', async () => {
  const world = await createWorld()
  await quote(world, seven)
  const { lotId: first } = await grantLot(world, 50n, { currency: 'CNY', priority: 1 })
  const { lotId: second } = await grantLot(world, 50n, { currency: 'CNY' })
  const envelopeId = await fund(world, exchanged(60n))
  expect(await freeOf(world, first, second)).toEqual([0n, 40n])
  expect(await pocket(world, envelopeId)).toMatchObject({ balance_class: 'credit', currency: 'USD', posted_credit: 8n })
  const legs = await world.db.selectFrom('transfer').selectAll().where('envelope_id', '=', envelopeId).execute()
  expect(new Set(legs.map((leg) => leg.quote_id)).size).toBe(1)
  expect(legs.map((leg) => [leg.currency, leg.amount, leg.lot_id])).toEqual([
    ['CNY', 50n, first],
    ['CNY', 10n, second],
    ['USD', 8n, null],
  ])
  await close(world, envelopeId)
  expect(await freeOf(world, first, second)).toEqual([50n, 50n])
  await expectLotsTrue(world)
})

test("the return uses the funding's own quote, rounded down, whatever the newest quote says", async () => {
  const world = await createWorld()
  await quote(world, seven)
  const { lotId: first } = await grantLot(world, 50n, { currency: 'CNY', priority: 1 })
  const { lotId: second } = await grantLot(world, 50n, { currency: 'CNY' })
  const envelopeId = await fund(world, exchanged(60n))
  await quote(world, { ...seven, sell: 1n })
  await spend(world, envelopeId, 3n)
  await close(world, envelopeId)
  expect(await freeOf(world, first, second)).toEqual([25n, 50n])
  await expectLotsTrue(world)
})

test('fundings at two quotes and in the own currency go back in reverse, each as it came', async () => {
  const world = await createWorld()
  await quote(world, seven)
  const { lotId: yuan } = await grantLot(world, 100n, { currency: 'CNY' })
  const { lotId: dollar } = await grantLot(world, 5n, { currency: 'USD', priority: 1 })
  const envelopeId = await fund(world, exchanged(20n))
  const topUp = async (...fundings: Parameters<typeof fund>[1][]) =>
    topUpEnvelope(world.db, world.scope, { envelopeId, fundings })
  expect(await topUp(funding(5n, { currency: 'USD' }))).toBeUndefined()
  await quote(world, { ...seven, sell: 3n })
  expect(await topUp(exchanged(10n))).toBeUndefined()
  expect(await pocket(world, envelopeId)).toMatchObject({ posted_credit: 2n + 5n + 3n })
  await spend(world, envelopeId, 1n)
  await close(world, envelopeId)
  expect(await freeOf(world, yuan, dollar)).toEqual([70n + 10n + 7n, 5n])
  await expectLotsTrue(world)
})

test('at any rate, in any parts, the wallet gets back what the rate says, never more than it sold, and all when nothing was spent', async () => {
  const world = await createWorld()
  const nano = fc.bigInt({ min: 1n, max: 10n ** 15n })
  await fc.assert(
    fc.asyncProperty(nano, nano, nano, fc.nat({ max: 100 }), fc.nat({ max: 100 }), async (sell, buy, amount, a, b) => {
      const bought = (amount * buy) / sell
      fc.pre(bought >= 1n && bought <= 10n ** 15n)
      await quote(world, { ...seven, sell, buy })
      const { lotId } = await grantLot(world, amount, { currency: 'CNY', priority: 1 })
      const envelopeId = await fund(world, exchanged(amount))
      expect(await pocket(world, envelopeId)).toMatchObject({ posted_credit: bought })
      const early = (bought * BigInt(a)) / 100n
      const spent = ((bought - early) * BigInt(b)) / 100n
      if (early > 0n) await sendHome(world, envelopeId, early)
      if (spent > 0n) await spend(world, envelopeId, spent)
      await close(world, envelopeId)
      const late = bought - early - spent
      const worth = (part: bigint) => (part * sell) / buy
      const [free] = await freeOf(world, lotId)
      expect(free).toBe(spent === 0n ? amount : worth(early) + worth(late))
      expect(free).toBeLessThanOrEqual(amount)
      await letExpire(world, lotId)
      await expireLots(world.db)
    }),
    { numRuns: 25 },
  )
  await expectLotsTrue(world)
})

test('without a quote, with one that has expired or not begun, or for nothing at all, nothing is exchanged', async () => {
  const world = await createWorld()
  await grantLot(world, 100n, { currency: 'CNY' })
  await expect(fund(world, exchanged(10n))).rejects.toThrow('no_quote')
  await quote(world, seven, { effectiveAt: new Date(Date.now() + 3_600_000) })
  await quote(world, seven, { effectiveAt: new Date(0), expiresAt: new Date(1) })
  await expect(fund(world, exchanged(10n))).rejects.toThrow('no_quote')
  await quote(world, seven)
  await expect(fund(world, exchanged(6n))).rejects.toThrow('invalid_amount')
  await expect(fund(world, exchanged(10n, 'CNY'))).rejects.toThrow('wrong_currency')
  await expect(fund(world, exchanged(101n))).rejects.toThrow('wallet_short')
  await expect(fund(world, exchanged(60n), exchanged(60n))).rejects.toThrow('wallet_short')
  await quote(world, { ...seven, sell: 1n, buy: 10n ** 15n })
  await expect(fund(world, exchanged(2n))).rejects.toThrow('invalid_amount')
  await expectLotsTrue(world)
})

test('an envelope of CNY credit pays a route that is priced in USD, and its rest comes back at its own quote', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  await quote(world, { ...seven, sell: 71_000n, buy: 10_000n })
  const { lotId } = await grantLot(world, 1_000_000_000n, { currency: 'CNY' })
  const run = await world.openRun({}, [exchanged(71_000_000n)])
  const answer = await executeCall(engine, run.request('one', QUESTION, { model: 'research' }))
  expect(answer.kind).toBe('answered')
  await quote(world, { ...seven, sell: 80_000n, buy: 10_000n })
  await close(world, run.envelopeId)
  const report = await readReport(world.db, world.scope, run.runId)
  expect(report?.envelope.pockets).toHaveLength(1)
  expect(report?.totals).toHaveLength(1)
  const [paid] = report?.envelope.pockets ?? []
  expect(paid).toMatchObject({ balanceClass: 'credit', currency: 'USD', funded: { amount: '0.010000' } })
  expect((await getRun(world.db, world.scope, run.runId)).envelope.pockets[0]).toMatchObject({
    funded: paid?.funded,
    spent: paid?.spent,
    returned: paid?.returned,
  })
  const { posted_debit: out } = await pocket(world, run.envelopeId)
  expect(out).toBe(10_000_000n)
  const returned = await world.db
    .selectFrom('transfer')
    .select('amount')
    .where('code', '=', 'return')
    .orderBy('seq')
    .execute()
  const [home, sold] = returned.map((row) => row.amount)
  expect(home).toBeLessThan(10_000_000n)
  expect(sold).toBe(((home ?? 0n) * 71_000n) / 10_000n)
  expect(await freeOf(world, lotId)).toEqual([1_000_000_000n - 71_000_000n + (sold ?? 0n)])
  await expectLotsTrue(world)
})

function exchanged(amount: bigint, exchangeTo = 'USD') {
  return funding(amount, { currency: 'CNY', exchangeTo })
}

async function quote(
  world: World,
  rate: Rate,
  times: { readonly effectiveAt?: Date; readonly expiresAt?: Date } = {},
): Promise<void> {
  const { organisation_id: organisationId } = await world.db
    .selectFrom('project')
    .select('organisation_id')
    .executeTakeFirstOrThrow()
  const { effectiveAt = null, expiresAt = null } = times
  await createQuote(world.db, organisationId, { ...rate, source: 'test', effectiveAt, expiresAt, nowMs: Date.now() })
}

async function pocket(world: World, envelopeId: string) {
  return world.db
    .selectFrom('account')
    .selectAll()
    .where('kind', '=', 'pocket')
    .where('envelope_id', '=', envelopeId)
    .executeTakeFirstOrThrow()
}

test('nobody stores a price, a catalog or a quote as of the past', async () => {
  const world = await createWorld()
  for (const table of ['price', 'catalog', 'quote']) {
    const copied = sql`insert into ${sql.table(table)} overriding system value select * from ${sql.table(table)}`
    await expect(copied.execute(world.db)).rejects.toThrow(/permission denied/)
  }
  const { rows } = await sql<{ isPast: boolean }>`
    select (add_quote(jsonb_build_object('id', uuidv7(), 'organisation_id', uuidv7(), 'sell_currency', 'CNY',
      'buy_currency', 'USD', 'sell', 1, 'buy', 1, 'source', 'test', 'effective_at', '2000-01-01')))
      .effective_at < clock_timestamp() - interval '1 minute' as "isPast"`.execute(world.db)
  expect(rows).toEqual([{ isPast: false }])
})
