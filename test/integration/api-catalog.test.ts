import { makeTenant, useApi, type TestApi } from '#test/support/api.ts'
import { testCatalog } from '#test/support/world.ts'
import { expect, test } from 'vitest'

const path = '/api/v1/catalog'

function put(api: TestApi, body: unknown, key = api.operatorKey) {
  return api.ask('PUT', path, { key, body })
}

const cheaper = {
  ...testCatalog,
  prices: testCatalog.prices.map((price) => ({ ...price, input: '0.01' })),
}

test('a catalog is put in force as a new version; the same document again is the same version', async () => {
  const api = await useApi()
  const key = api.operatorKey
  const first = await put(api, cheaper)
  expect(first).toMatchObject({ status: 200, body: { version: 2 } })
  expect((await put(api, cheaper)).body).toMatchObject({ version: 2 })
  expect((await put(api, testCatalog)).body).toMatchObject({ version: 3 })
  const now = await api.ask('GET', path, { key })
  expect(now.body).toMatchObject({ version: 3, catalog: { models: [{ name: 'research' }, {}, {}] } })
  const older = await api.ask('GET', `${path}/versions/2`, { key })
  expect(older.body).toMatchObject({ version: 2, catalog: { prices: [{ input: '0.01' }, {}, {}] } })
  const page = await api.ask('GET', `${path}/versions?limit=2`, { key })
  expect(page.body).toMatchObject({ versions: [{ version: 3, models: 3, prices: 3 }, { version: 2 }] })
  const last = await api.ask('GET', `${path}/versions?limit=2&cursor=${String(page.body['nextCursor'])}`, { key })
  expect(last.body).toMatchObject({ versions: [{ version: 1 }], nextCursor: null })
  // What is answered can be put again.
  const { catalog } = now.body
  expect((await put(api, catalog)).body).toMatchObject({ version: 3 })
})

test('a catalog that is wrong is refused as a whole, with everything that is wrong', async () => {
  const api = await useApi()
  const [model] = testCatalog.models
  const answer = await put(api, {
    models: [model, model, { name: 'x', routes: [] }],
    prices: [{ provider: 'sandbox' }],
  })
  expect([answer.status, answer.body['code']]).toEqual([400, 'invalid_request'])
  const { errors } = answer.body
  expect(errors).toContainEqual({ path: 'models.1', message: 'the model research stands twice' })
  expect(errors).toContainEqual(expect.objectContaining({ path: 'models.2.routes' }))
  expect(errors).toContainEqual(expect.objectContaining({ path: 'prices.0.currency' }))
  expect((await api.ask('GET', path, { key: api.operatorKey })).body).toMatchObject({ version: 1 })
})

test('what is missing here is a warning, and the catalog is in force', async () => {
  const api = await useApi()
  const [model] = testCatalog.models
  const routes = [{ ...model?.routes[0], provider: 'elsewhere' }]
  const answer = await put(api, { models: [{ name: 'm', routes }], prices: [] })
  expect(answer.body).toEqual({
    version: 2,
    warnings: [
      { path: 'models.0.routes.0.provider', message: 'elsewhere is no provider that is configured here' },
      { path: 'models.0.routes.0', message: 'has no price in USD: no call is made' },
    ],
  })
})

test('operators only, and nothing odd: a body that is no JSON, a version that is none, a huge document', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  const operator = api.operatorKey
  for (const method of ['PUT', 'GET'] as const) {
    expect((await api.ask(method, path, { key, ...(method === 'PUT' && { body: cheaper }) })).status).toBe(403)
  }
  expect((await api.ask('GET', `${path}/versions`, { key })).status).toBe(403)
  expect((await api.ask('GET', path)).status).toBe(401)
  expect((await put(api, null)).status).toBe(400)
  expect((await put(api, [])).status).toBe(400)
  for (const version of ['0', 'x', '99999999999', '1.5']) {
    expect((await api.ask('GET', `${path}/versions/${version}`, { key: operator })).status).toBe(400)
  }
  expect((await api.ask('GET', `${path}/versions/77`, { key: operator })).status).toBe(404)
  expect((await api.ask('GET', `${path}/versions?cursor=x`, { key: operator })).status).toBe(400)
  expect((await put(api, { models: 'x'.repeat(9 * 1024 * 1024) })).status).toBe(413)
})

test('models show what their routes can do, and to nobody what they cost us', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  const [model] = testCatalog.models
  const routes = [
    { ...model?.routes[0], costCurrency: 'CNY', markupBps: 500, weight: 3, capabilities: { vision: true } },
    { ...model?.routes[2] },
  ]
  await put(api, { models: [{ name: 'm', strategy: 'weighted', routes }], prices: [] })
  const { body } = await api.ask('GET', '/api/v1/models', { key })
  expect(body).toMatchObject({
    models: [
      {
        name: 'm',
        kind: 'chat',
        strategy: 'weighted',
        routes: [
          { weight: 3, capabilities: { tools: true, jsonSchema: true, vision: true, streaming: true } },
          { weight: 1, capabilities: { vision: false } },
        ],
      },
    ],
  })
  expect(JSON.stringify(body)).not.toMatch(/markup|cost/i)
})
