import { importCatalog } from '#db/catalog.ts'
import { priceInForce } from '#db/price.ts'
import { formatNano } from '#domain/money.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { bookedPricesSchema, priceComparisonSchema } from '#contracts/api-price.ts'
import { makeTenant, useApi, type TestApi } from '../support/api.ts'
import { testCatalog } from '../support/world.ts'

const LUX = { provider: 'lux', upstreamModel: 'lux-1', currency: 'USD' } as const
const full = {
  ...LUX,
  input: '3',
  cachedInput: '0.3',
  cacheWrite: '3.75',
  output: '15',
  reasoning: '16',
  perCall: '0.001',
  perImage: '0.002',
  toolFees: { web_search: '0.01', code: '0' },
  tiers: [{ aboveInputTokens: 200_000, input: '6', cachedInput: '0.6', output: '22.5' }],
}

async function send(api: TestApi, prices: readonly unknown[], path = '/api/v1/prices') {
  return priceComparisonSchema.parse((await api.ask('POST', path, { key: api.operatorKey, body: { prices } })).body)
}

test('a price list adds what differs from the prices in force, and says so before it does', async () => {
  const api = await useApi()
  const before = await send(api, [full], '/api/v1/prices/comparison')
  expect(before.added[0]?.changes).toContainEqual({ component: 'cacheWrite', from: null, to: '3.750000' })
  expect(await priceInForce(api.db, LUX)).toBeUndefined()
  expect(await send(api, [full])).toEqual(before)
  expect(await send(api, [full])).toEqual({ added: [], changed: [], unchanged: 1 })
  const found = await priceInForce(api.db, LUX)
  expect(found?.prices).toEqual({
    inputNanoPerMillion: 3_000_000_000n,
    cachedInputNanoPerMillion: 300_000_000n,
    cacheWriteNanoPerMillion: 3_750_000_000n,
    outputNanoPerMillion: 15_000_000_000n,
    reasoningNanoPerMillion: 16_000_000_000n,
    perCallNano: 1_000_000n,
    perImageNano: 2_000_000n,
    toolFeesNano: { web_search: 10_000_000n },
    tiers: [
      {
        aboveInputTokens: 200_000,
        inputNanoPerMillion: 6_000_000_000n,
        cachedInputNanoPerMillion: 600_000_000n,
        cacheWriteNanoPerMillion: 6_000_000_000n,
        outputNanoPerMillion: 22_500_000_000n,
        reasoningNanoPerMillion: 22_500_000_000n,
      },
    ],
  })
  const changed = await send(api, [{ ...full, output: '14', tiers: undefined }])
  expect(changed.changed[0]?.changes).toContainEqual({ component: 'output', from: '15.000000', to: '14.000000' })
  expect(changed.changed[0]?.changes).toContainEqual({ component: 'input above 200000', from: '6.000000', to: null })
  // Back again is a row of its own: ids pin prices.
  await send(api, [full])
  const back = await priceInForce(api.db, LUX)
  expect(back?.prices).toEqual(found?.prices)
  expect(back?.id).not.toBe(found?.id)
})

test('a price of a later time is listed, in force when its time comes and not before, and never in the past', async () => {
  const api = await useApi()
  await send(api, [{ ...LUX, input: '1', output: '2' }])
  const effectiveAt = new Date(Date.now() + 3_600_000).toISOString()
  const later = { ...LUX, input: '5', output: '5', effectiveAt }
  expect((await send(api, [later])).changed).toHaveLength(1)
  expect(await send(api, [later])).toMatchObject({ changed: [], unchanged: 1 })
  // Dearer now, and as planned then.
  expect((await send(api, [{ ...LUX, input: '2', output: '2' }])).changed).toHaveLength(1)
  expect(await send(api, [{ ...LUX, input: '9', output: '9', effectiveAt: '2020-01-01T00:00:00Z' }])).toMatchObject({
    changed: [{ changes: [{ from: '2.000000' }, {}, {}, {}, {}] }],
  })
  const { body } = await api.ask('GET', '/api/v1/prices?provider=lux', { key: api.operatorKey })
  const { prices } = bookedPricesSchema.parse(body)
  expect(prices.map(({ inForce, components }) => `${inForce} ${components['input']}`).toSorted()).toEqual([
    'false 5.000000',
    'true 9.000000',
  ])
  const { rows } = await sql<{ past: number }>`
    select count(*)::integer as past from price where effective_at < clock_timestamp() - interval '1 hour'`.execute(
    api.db,
  )
  expect(rows[0]?.past).toBe(0)
})

test('pages of the price book hold each price once', async () => {
  const api = await useApi()
  const many = Array.from({ length: 7 }, (_, index) => ({
    ...LUX,
    upstreamModel: `m${index}`,
    input: '1',
    output: '1',
  }))
  await send(api, many)
  const seen: string[] = []
  let cursor: string | null = ''
  while (cursor !== null) {
    const query: string = `provider=lux&limit=3${cursor === '' ? '' : `&cursor=${cursor}`}`
    const { body } = await api.ask('GET', `/api/v1/prices?${query}`, { key: api.operatorKey })
    const page = bookedPricesSchema.parse(body)
    seen.push(...page.prices.map(({ upstreamModel }) => upstreamModel))
    cursor = page.nextCursor
  }
  expect(seen.toSorted()).toEqual(many.map(({ upstreamModel }) => upstreamModel))
})

test('a list that is wrong changes nothing and names what is wrong; customers see no price book', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const wrong = async (prices: readonly unknown[]) => {
    const { status, body } = await api.ask('POST', '/api/v1/prices', { key: api.operatorKey, body: { prices } })
    return `${status} ${JSON.stringify(body)}`
  }
  expect(await wrong([{ ...LUX, input: '1' }])).toContain('output')
  expect(await wrong([{ ...LUX, input: '1.0000000001', output: '1' }])).toContain('at most nine decimals')
  expect(await wrong([{ ...LUX, input: '-1', output: '1' }])).toContain('400')
  expect(await wrong([full, full])).toContain('stands twice')
  expect(await wrong([{ ...full, tiers: [...full.tiers, ...full.tiers] }])).toContain('begins above the one before')
  expect(await wrong([])).toContain('400')
  for (const [method, path] of [
    ['GET', '/api/v1/prices'],
    ['POST', '/api/v1/prices'],
    ['POST', '/api/v1/prices/comparison'],
  ] as const) {
    const body = method === 'POST' ? { body: { prices: [full] } } : {}
    expect((await api.ask(method, path, { key: tenant.key, ...body })).status).toBe(403)
  }
  expect(await priceInForce(api.db, LUX)).toBeUndefined()
})

test('a catalog that is imported brings prices of every component, and nobody edits one', async () => {
  const api = await useApi()
  await importCatalog(api.db, { ...testCatalog, prices: [...testCatalog.prices, full] })
  const price = await priceInForce(api.db, LUX)
  expect(price && formatNano(price.prices.cacheWriteNanoPerMillion)).toBe('3.750000')
  await expect(sql`update price set more = null`.execute(api.db)).rejects.toThrow('permission denied')
  await expect(sql`insert into price (id) values (uuidv7())`.execute(api.db)).rejects.toThrow('permission denied')
})
