import { auditListSchema } from '#contracts/api-audit.ts'
import { providerListSchema, providerSchema } from '#contracts/api-provider.ts'
import { expect, test } from 'vitest'
import { storeCatalog } from '#db/catalog.ts'
import { sql } from 'kysely'
import { pollUntil } from '../support/poll.ts'
import { makeTenant, useApi, type Answer, type TestApi } from '../support/api.ts'
import { testCatalog } from '../support/world.ts'

const lux = { name: 'lux', baseUrl: 'https://lux.example/v1', apiKey: 'lux-0123456789-first' }

type Method = 'GET' | 'POST' | 'PATCH' | 'DELETE'

function asOperator(api: TestApi) {
  return (method: Method, path: string, body?: unknown, headers = {}): Promise<Answer> =>
    api.ask(method, `/api/v1${path}`, { key: api.operatorKey, body, headers })
}

test('a provider is added, shown, changed and deleted, and its key is never answered', async () => {
  const api = await useApi()
  const ask = asOperator(api)
  const added = await ask('POST', '/providers', { ...lux, maxTokensField: 'max_tokens' })
  expect(added.status).toBe(201)
  expect(added.body).toMatchObject({
    name: 'lux',
    source: 'stored',
    kind: 'openai',
    baseUrl: lux.baseUrl,
    maxTokensField: 'max_tokens',
    promptCache: null,
    keyHint: '…irst',
  })
  expect((await ask('GET', '/providers/lux')).body).toEqual(added.body)

  const moved = await ask('PATCH', '/providers/lux', {
    baseUrl: 'https://lux.example/v2',
    apiKey: 'lux-9876543210-second',
  })
  expect(moved).toMatchObject({ status: 200, body: { baseUrl: 'https://lux.example/v2', keyHint: '…cond' } })
  const kind = await ask('PATCH', '/providers/lux', { kind: 'anthropic', maxTokensField: null, promptCache: true })
  expect(kind).toMatchObject({ status: 200, body: { kind: 'anthropic', maxTokensField: null, promptCache: true } })
  expect(providerSchema.parse(kind.body).keyChangedAt).toBe(providerSchema.parse(moved.body).keyChangedAt)

  const { providers } = providerListSchema.parse((await ask('GET', '/providers')).body)
  expect(providers.map(({ name, source }) => [name, source])).toEqual([
    ['lux', 'stored'],
    ['sandbox', 'environment'],
  ])
  const page = providerListSchema.parse((await ask('GET', '/providers?limit=1')).body)
  expect(page.providers.map(({ name }) => name)).toEqual(['lux'])
  const next = providerListSchema.parse((await ask('GET', `/providers?limit=2&cursor=${page.nextCursor}`)).body)
  expect(next).toMatchObject({ providers: [{ name: 'sandbox' }], nextCursor: null })
  expect((await ask('DELETE', '/providers/lux')).status).toBe(204)
  expect((await ask('GET', '/providers/lux')).status).toBe(404)
  expect((await ask('DELETE', '/providers/lux')).status).toBe(404)
})

test('the audit log has each change with a hint of the key, and what is asked again has its effect once', async () => {
  const api = await useApi()
  const ask = asOperator(api)
  const headers = { 'idempotency-key': 'once' }
  const first = await ask('POST', '/providers', lux, headers)
  const again = await ask('POST', '/providers', lux, headers)
  expect([again.status, again.body]).toEqual([201, first.body])
  expect((await ask('POST', '/providers', { ...lux, apiKey: 'lux-another' }, headers)).status).toBe(422)
  await ask('PATCH', '/providers/lux', { apiKey: 'lux-9876543210-second' })
  await ask('DELETE', '/providers/lux')
  const { events } = auditListSchema.parse((await ask('GET', '/audit?target=lux')).body)
  expect(events).toMatchObject([
    { action: 'provider.delete', before: { keyHint: '…cond' }, after: null },
    { action: 'provider.change', before: { keyHint: '…irst' }, after: { keyHint: '…cond' } },
    { action: 'provider.create', before: null, after: { name: 'lux', keyHint: '…irst' } },
  ])
  expect(JSON.stringify(events)).not.toMatch(/0123456789|9876543210/)
})

test('it is for operators, and those of the environment are changed there', async () => {
  const api = await useApi()
  const ask = asOperator(api)
  const { key } = await makeTenant(api)
  for (const [method, path, body] of [
    ['GET', '/providers'],
    ['GET', '/secrets'],
    ['POST', '/providers', lux],
    ['PATCH', '/providers/sandbox', {}],
    ['DELETE', '/providers/sandbox'],
  ] as const) {
    expect([path, (await api.ask(method, `/api/v1${path}`, { key, body })).status]).toEqual([path, 403])
  }
  for (const [method, body] of [['PATCH', { apiKey: 'x' }], ['DELETE']] as const) {
    const { status, body: problem } = await ask(method, '/providers/sandbox', body)
    expect([status, problem['code']]).toEqual([409, 'provider_fixed'])
  }
  expect((await ask('POST', '/providers', { ...lux, name: 'sandbox' })).body['code']).toBe('already_exists')
  expect((await ask('POST', '/providers', lux)).status).toBe(201)
  expect((await ask('POST', '/providers', lux)).body['code']).toBe('already_exists')
})

test.each([
  [{ baseUrl: 'https://user:hush@lux.example/v1' }, 'baseUrl'],
  [{ baseUrl: 'https://lux.example/v1#hush' }, 'baseUrl'],
  [{ baseUrl: 'https://lux.example/v1?api-version=1&Key=hush' }, 'baseUrl'],
  [{ baseUrl: 'https://lux.example/v1?subscription-key=hush' }, 'baseUrl'],
  [{ baseUrl: 'nowhere?key=hush' }, 'baseUrl'],
  [{ baseUrl: 'ftp://lux.example/v1' }, 'baseUrl'],
  [{ baseUrl: 'https://lux.example/\0' }, 'baseUrl'],
  [{ baseUrl: 'https://lux.example/\ud800' }, 'baseUrl'],
  [{ apiKey: 'two words' }, 'apiKey'],
  [{ apiKey: '' }, 'apiKey'],
  [{ name: 'a/b' }, 'name'],
  [{ promptCache: true }, 'promptCache'],
  [{ kind: 'anthropic', maxTokensField: 'max_tokens' }, 'maxTokensField'],
])('a provider with %j is refused by the name of the field, and what it said is not repeated', async (change, path) => {
  const api = await useApi()
  const { status, body } = await asOperator(api)('POST', '/providers', { ...lux, ...change })
  expect(status).toBe(400)
  expect(body['errors']).toMatchObject([{ path }])
  expect(JSON.stringify(body)).not.toMatch(/hush|two words|0123456789/)
})

test('what can be the name of no provider is the name of none', async () => {
  const api = await useApi()
  for (const name of ['%00', 'a%2Fb', '..', "'--", 'x'.repeat(150)]) {
    for (const [method, body] of [['GET'], ['DELETE'], ['PATCH', { apiKey: 'x' }]] as const) {
      const { status } = await asOperator(api)(method, `/providers/${name}`, body)
      expect([method, name, status]).toEqual([method, name, 404])
    }
  }
})

test('a private address is taken, and a stored key is sent to no address but its own', async () => {
  const api = await useApi()
  const ask = asOperator(api)
  expect((await ask('POST', '/providers', { ...lux, baseUrl: 'http://10.0.0.7:8000/v1' })).status).toBe(201)
  const versioned = { ...lux, name: 'azure', baseUrl: 'https://azure.example/openai?api-version=2026-10-21' }
  expect((await ask('POST', '/providers', versioned)).status).toBe(201)
  const elsewhere = await ask('PATCH', '/providers/lux', { baseUrl: 'https://elsewhere.example/v1' })
  expect(elsewhere).toMatchObject({ status: 400, body: { errors: [{ path: 'apiKey' }] } })
  const cache = await ask('PATCH', '/providers/lux', { promptCache: true })
  expect(cache).toMatchObject({ status: 400, body: { errors: [{ path: 'promptCache' }] } })
  expect((await ask('PATCH', '/providers/lux', { baseUrl: 'http://10.0.0.7:8000/v1' })).status).toBe(200)
})

test('one that routes of the catalog in force name is not deleted, and the answer says which', async () => {
  const api = await useApi()
  const ask = asOperator(api)
  await ask('POST', '/providers', lux)
  const [model] = testCatalog.models.slice(1)
  const routes = (model?.routes ?? []).map((route) => ({ ...route, provider: 'lux' }))
  const named = { models: [{ ...model, routes }], prices: [] }
  const imported = await api.ask('PUT', '/api/v1/catalog', { key: api.operatorKey, body: named })
  expect(JSON.stringify(imported.body['warnings'])).not.toContain('no provider')
  const refused = await ask('DELETE', '/providers/lux')
  expect(refused).toMatchObject({ status: 409, body: { code: 'provider_in_use', routes: ['steady › steady'] } })
  await api.ask('PUT', '/api/v1/catalog', { key: api.operatorKey, body: testCatalog })
  expect((await ask('DELETE', '/providers/lux')).status).toBe(204)
})

test('one that is deleted while a catalog that names it is put in force is not deleted', async () => {
  const api = await useApi()
  const ask = asOperator(api)
  await ask('POST', '/providers', lux)
  const [model] = testCatalog.models.slice(1)
  const routes = (model?.routes ?? []).map((route) => ({ ...route, provider: 'lux' }))
  const asked = await api.db.transaction().execute(async (trx) => {
    await storeCatalog(trx, { models: [{ ...testCatalog.models[0], name: 'other', routes }], prices: [] })
    const deleted = ask('DELETE', '/providers/lux')
    const waiting = async () => {
      const { rows } = await sql`select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'`.execute(api.db)
      return rows.length === 1
    }
    await pollUntil(waiting, { what: 'it waits for the catalog' })
    return { deleted }
  })
  expect(await asked.deleted).toMatchObject({ status: 409, body: { code: 'provider_in_use' } })
})

test('without a key for secrets nothing is stored, and the answer says what to do', async () => {
  const api = await useApi({ secrets: undefined })
  const ask = asOperator(api)
  const tenant = await makeTenant(api)
  const provider = await ask('POST', '/providers', lux)
  const webhook = await api.ask('POST', '/api/v1/webhooks', {
    key: tenant.key,
    body: { url: 'https://example.org/', topics: ['state'] },
  })
  for (const { status, body } of [provider, webhook]) {
    expect([status, body['code']]).toEqual([409, 'no_secrets_key'])
    expect(body['remedy']).toContain('PURSER_SECRETS_KEY_FILE')
  }
  expect((await ask('GET', '/secrets')).body).toEqual({ encryptsWith: null, secrets: [] })
  expect(await api.db.selectFrom('webhook').select('id').execute()).toEqual([])
})
