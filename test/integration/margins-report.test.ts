import { marginsSchema } from '#contracts/api-margin.ts'
import { parseDecimal } from '#domain/money.ts'
import { expect, test } from 'vitest'
import { makeTenant, useApi, type TestApi } from '../support/api.ts'
import { sellRun } from '../support/sold-run.ts'

async function ask(api: TestApi, query: string) {
  const { body } = await api.ask('GET', `/api/v1/margins${query}`, { key: api.operatorKey })
  return marginsSchema.parse(body).margins
}

const nano = (amount: string) => {
  const parsed = parseDecimal(amount)
  return parsed.ok ? parsed.nano : -1n
}

test('margins are told by route, model, project and month, with the cost in both currencies', async () => {
  const api = await useApi()
  const { tenant } = await sellRun(api)
  const month = new Date().toISOString().slice(0, 7)
  const routes = await ask(api, '')
  expect(routes.map(({ route, sell }) => [route, sell.currency])).toEqual([
    ['abroad', 'CNY'],
    ['dear', 'USD'],
    ['plain', 'USD'],
  ])
  const [abroad, dear, plain] = routes
  expect(plain).toMatchObject({ attempts: 1, margin: { amount: '0.000000' }, cost: plain?.sell, billed: [] })
  expect(nano(dear?.sell.amount ?? '')).toBe(nano(dear?.cost.amount ?? '') + nano(dear?.margin.amount ?? ''))
  expect(nano(dear?.margin.amount ?? '')).toBeGreaterThan(nano(dear?.cost.amount ?? '') / 9n)
  expect(abroad?.billed).toHaveLength(1)
  const billed = nano(abroad?.billed[0]?.amount ?? '')
  expect(nano(abroad?.cost.amount ?? '')).toBe((billed * 72n + 9n) / 10n)
  const whole = await ask(api, '?by=project,month')
  expect(whole.map((line) => [line.projectId, line.month, line.attempts, line.sell.currency])).toEqual([
    [tenant.projectId, month, 1, 'CNY'],
    [tenant.projectId, month, 2, 'USD'],
  ])
  expect((await ask(api, `?by=model&project=${tenant.projectId}`)).map(({ model }) => model)).toEqual([
    'abroad',
    'plain',
    'steady',
  ])
  expect(await ask(api, '?from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z')).toEqual([])
})

test('margins are an operator’s, of the own organisation, and of a period that is one', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const status = async (query: string, key = api.operatorKey) =>
    (await api.ask('GET', `/api/v1/margins${query}`, { key })).status
  expect(await status('', tenant.key)).toBe(403)
  expect(await status('?by=colour')).toBe(400)
  expect(await status('?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z')).toBe(400)
  expect(await status('?project=00000000-0000-7000-8000-000000000000')).toBe(404)
})
