import { json } from '#db/json.ts'
import { pricesFromStored, storedPrices, storedUsage } from '#contracts/stored.ts'
import { chargeOf, type Prices, type TokenPrices, type Usage } from '#domain/pricing.ts'
import { convertedCost, sellOf } from '#domain/selling.ts'
import fc from 'fast-check'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { createTestDatabase } from '../support/postgres.ts'

/** Prices and usages of one statement, so that many are compared in few round trips. */
const EACH = 200

const nano = fc.bigInt({ min: 0n, max: 10n ** 15n })
const someNano = fc.oneof(fc.constant(0n), fc.bigInt({ min: 0n, max: 50n }), nano)
const tokens = fc.record<TokenPrices>({
  inputNanoPerMillion: someNano,
  cachedInputNanoPerMillion: someNano,
  cacheWriteNanoPerMillion: someNano,
  outputNanoPerMillion: someNano,
  reasoningNanoPerMillion: someNano,
})
const prices: fc.Arbitrary<Prices> = fc
  .record({
    base: tokens,
    fees: fc.dictionary(fc.stringMatching(/^[a-z_]{1,8}$/), someNano, { maxKeys: 3 }),
    perCallNano: someNano,
    perImageNano: someNano,
    tiers: fc.uniqueArray(fc.tuple(fc.integer({ min: 1, max: 300_000 }), tokens), {
      selector: ([at]) => at,
      maxLength: 3,
    }),
  })
  .map(({ base, fees, perCallNano, perImageNano, tiers }) => ({
    ...base,
    perCallNano,
    perImageNano,
    toolFeesNano: fees,
    tiers: tiers
      .toSorted(([left], [right]) => left - right)
      .map(([aboveInputTokens, each]) => ({ aboveInputTokens, ...each })),
  }))
const count = fc.integer({ min: 0, max: 400_000 })
const usage: fc.Arbitrary<Usage> = fc
  .record({
    parts: fc.tuple(count, count, count),
    visible: count,
    reasoning: count,
    images: fc.integer({ min: 0, max: 9 }),
    toolUses: fc.dictionary(fc.stringMatching(/^[a-z_]{1,8}$/), fc.integer({ min: 0, max: 9 }), { maxKeys: 3 }),
  })
  .map(({ parts: [fresh, cachedInput, cacheWrite], visible, reasoning, images, toolUses }) => ({
    input: fresh + cachedInput + cacheWrite,
    cachedInput,
    cacheWrite,
    output: visible + reasoning,
    reasoning,
    images,
    toolUses,
  }))
const terms = fc.record({
  markupBps: fc.integer({ min: 0, max: 1_000_000 }),
  quote: fc.option(
    fc.record({ sell: fc.bigInt({ min: 1n, max: 10n ** 12n }), buy: fc.bigInt({ min: 1n, max: 10n ** 12n }) }),
  ),
})

async function connect(): Promise<pg.Client> {
  const database = await createTestDatabase()
  const client = new pg.Client(database.appUrl)
  await client.connect()
  onTestFinished(async () => {
    await client.end()
    await database.drop()
  })
  return client
}

test('what the database charges for a usage, and sells a price at, is what the engine does, to the nano', async () => {
  const client = await connect()
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(prices, usage, terms), { minLength: EACH, maxLength: EACH }), async (cases) => {
      const asked = cases.map(([price, used, sale]) => ({
        price: storedPrices(price),
        used: storedUsage(used),
        bps: sale.markupBps,
        sell: sale.quote?.sell ?? 1n,
        buy: sale.quote?.buy ?? 1n,
      }))
      const { rows } = await client.query<{ charge: string; sold: unknown; converted: string }>(
        `select charge_of(i.price, i.used)::text as charge, sell_prices(i.price, i.bps, i.sell, i.buy) as sold,
           sell_of(charge_of(i.price, i.used), 0, i.sell, i.buy)::text as converted
         from rows from (jsonb_to_recordset($1::jsonb) as (price jsonb, used jsonb, bps numeric, sell numeric, buy numeric))
           with ordinality as i(price, used, bps, sell, buy, place) order by place`,
        [json(asked)],
      )
      cases.forEach(([price, used, sale], index) => {
        const row = rows[index]
        const charge = chargeOf(price, used)
        const sold = sellOf(price, sale)
        expect(row?.charge).toBe(charge.toString())
        expect(row?.converted).toBe(convertedCost(charge, sale.quote).toString())
        expect(row?.sold).toEqual(JSON.parse(json(storedPrices(sold))))
        expect(storedPrices(pricesFromStored(row?.sold))).toEqual(storedPrices(sold))
      })
    }),
    { numRuns: 10 },
  )
})

test('usages from before there were more components cost what they cost, and one that is none costs nothing known', async () => {
  const client = await connect()
  const old = { inputNanoPerMillion: '400000000', cachedInputNanoPerMillion: '400000000' }
  const price = { ...old, outputNanoPerMillion: '1600000000', perCallNano: '5' }
  const used = async (each: unknown) =>
    (await client.query('select charge_of($1, $2)::text as charge', [json(price), json(each)])).rows[0]?.charge
  expect(await used({ input: 1000, cachedInput: 0, output: 200 })).toBe('720005')
  expect(await used({ input: 1000, output: 200 })).toBeNull()
  expect(await used({ input: 1000, cachedInput: 0, output: 200, toolUses: { search: 'many' } })).toBe('720005')
  expect(await used({ input: '1e3', cachedInput: 0, output: 1 })).toBeNull()
  expect(await used(null)).toBeNull()
})
