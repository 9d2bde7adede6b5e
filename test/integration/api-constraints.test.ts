import { runFacts } from '#db/run.ts'
import { makeTenant, runBody, text, useApi, type TestApi, type Tenant } from '#test/support/api.ts'
import { expect, test } from 'vitest'

async function keyWith(api: TestApi, tenant: Tenant, constraints: unknown): Promise<string> {
  const path = `/api/v1/projects/${tenant.projectId}/keys`
  return text(await api.make(path, { key: api.operatorKey, body: { name: 'bound', constraints } }), 'secret')
}

const research = { model: 'research' }
const both = {
  envelope: {
    pockets: ['direct', 'credit'].map((balanceClass) => ({ balanceClass, amount: { amount: '1', currency: 'USD' } })),
  },
}

test.each<[string, Readonly<Record<string, unknown>>, object, string]>([
  ['a model that is not allowed', {}, { models: ['other'] }, 'steady: model_not_allowed'],
  ['a provider that is not allowed', {}, { providers: ['other'] }, 'steady: provider_not_allowed'],
  ['a balance that is not allowed', {}, { balanceClasses: ['credit'] }, 'steady: balance_class_not_allowed'],
  ['a price above the bound', {}, { maxPrices: [{ currency: 'USD', output: '1.59' }] }, 'steady: too_expensive'],
  [
    'a bound in another currency',
    {},
    { maxPrices: [{ currency: 'CNY', output: '99' }] },
    'steady: price_not_comparable',
  ],
])(
  '%s: the run is refused with the reason, whether the run or its key says so',
  async (_, change, constraints, reason) => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const bound = await keyWith(api, tenant, constraints)
    const asks = [
      [tenant.key, { ...change, constraints }],
      [bound, change],
      [bound, { ...change, constraints: { providers: ['sandbox'] } }],
    ] as const
    for (const [key, body] of asks) {
      const answer = await api.ask('POST', '/api/v1/runs', { key, body: runBody(body) })
      expect([answer.status, answer.body['code']]).toEqual([422, 'route_not_allowed'])
      expect(answer.body['detail']).toContain(reason)
      expect(answer.body['skipped']).toEqual([{ route: 'steady', reason: reason.slice('steady: '.length) }])
    }
    const wallet = await api.ask('GET', `/api/v1/projects/${tenant.projectId}/wallet`, { key: tenant.key })
    expect(JSON.stringify(wallet.body)).toContain('"available":{"amount":"10.000000"')
  },
)

test('what key and run allow together is what is allowed, and is known to whoever executes the calls', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const key = await keyWith(api, tenant, {
    balanceClasses: ['credit'],
    maxPrices: [{ currency: 'USD', input: '0.10' }],
  })
  const constraints = { models: ['research'], providers: ['sandbox'] }
  const run = await api.make('/api/v1/runs', { key, body: runBody({ ...research, ...both, constraints }) })
  expect(run['constraints']).toEqual(constraints)
  const facts = await runFacts(api.db, text(run, 'id'))
  expect(facts.bounds).toEqual([
    constraints,
    {
      balanceClasses: ['credit'],
      maxPrices: [{ currency: 'USD', inputNanoPerMillion: 100_000_000n, outputNanoPerMillion: undefined }],
    },
  ])
  const apart = await api.ask('POST', '/api/v1/runs', {
    key,
    body: runBody({ ...research, ...both, constraints: { balanceClasses: ['direct'] } }),
  })
  expect([apart.status, apart.body['code']]).toEqual([422, 'route_not_allowed'])
  expect(apart.body['skipped']).toEqual(
    ['economy', 'busy', 'steady'].map((route) => ({ route, reason: 'balance_class_not_allowed' })),
  )
})

test('where money would open an allowed route, money is what is asked for; a route that is not allowed needs no price', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const poor = await api.ask('POST', '/api/v1/runs', {
    key: tenant.key,
    body: runBody({ ...research, constraints: { balanceClasses: ['credit'] } }),
  })
  expect([poor.status, poor.body['code'], poor.body['remedy']]).toEqual([422, 'no_route', 'Put in one of: credit USD.'])
  const unpriced = (constraints?: object) =>
    api.ask('POST', '/api/v1/runs', { key: tenant.key, body: runBody({ model: 'unpriced', constraints }) })
  expect((await unpriced()).body['code']).toBe('no_price')
  expect((await unpriced({ providers: ['other'] })).body['code']).toBe('route_not_allowed')
})

test('a key shows its constraints, and one without may use everything', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const constraints = { models: ['steady'] }
  await keyWith(api, tenant, constraints)
  const { body } = await api.ask('GET', `/api/v1/projects/${tenant.projectId}/keys`, { key: api.operatorKey })
  expect(body).toMatchObject({ keys: [{ constraints }, { constraints: null }] })
  const run = await api.make('/api/v1/runs', { key: tenant.key, body: runBody() })
  expect(run['constraints']).toBeNull()
  expect((await runFacts(api.db, text(run, 'id'))).bounds).toEqual([])
})

test.each([
  { models: [] },
  { models: ['a'], colour: 'red' },
  { balanceClasses: ['gold'] },
  { maxPrices: [] },
  { maxPrices: [{ currency: 'USD' }] },
  { maxPrices: [{ currency: 'usd', input: '1' }] },
  { maxPrices: [{ currency: 'USD', input: '-1' }] },
  { maxPrices: [{ currency: 'USD', input: '0.0000000001' }] },
  { maxPrices: [{ currency: 'USD', input: 1 }] },
  {
    maxPrices: [
      { currency: 'USD', input: '1' },
      { currency: 'USD', output: '1' },
    ],
  },
  { models: Array.from({ length: 101 }, (_, index) => `m${index}`) },
  'steady',
])('constraints that mean nothing are refused: %j', async (constraints) => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const run = await api.ask('POST', '/api/v1/runs', { key: tenant.key, body: runBody({ constraints }) })
  expect([run.status, run.body['code']]).toEqual([400, 'invalid_request'])
  const made = await api.ask('POST', `/api/v1/projects/${tenant.projectId}/keys`, {
    key: api.operatorKey,
    body: { name: 'k', constraints },
  })
  expect([made.status, made.body['code']]).toEqual([400, 'invalid_request'])
})
