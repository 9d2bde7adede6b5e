import { bootstrapOrganisation } from '#db/organisation.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { makeOperator, text, useApi, type TestApi } from '../support/api.ts'
import { testCatalog } from '../support/world.ts'

const organisationSchema = z.object({ id: z.uuid(), name: z.string(), createdAt: z.string() })

async function listed(api: TestApi, key: string) {
  const { body } = await api.ask('GET', '/api/v1/organisations', { key })
  return z.array(organisationSchema).parse(body['organisations'])
}

/** The first operator key of an organisation that the installation's operator makes. */
async function makeOrganisation(api: TestApi, name: string): Promise<string> {
  const made = await api.make('/api/v1/organisations', { key: api.operatorKey, body: { name } })
  return z.object({ operatorKey: z.object({ secret: z.string() }) }).parse(made).operatorKey.secret
}

test('what serves all organisations is not changed by the operators of one of them', async () => {
  const api = await useApi()
  const provider = { name: 'lux', baseUrl: 'https://lux.example/v1', apiKey: 'lux-0123456789' }
  await api.make('/api/v1/providers', { key: api.operatorKey, body: provider })
  const stranger = await makeOrganisation(api, 'second')
  const price = { provider: 'lux', upstreamModel: 'm', currency: 'USD', input: '1', output: '1' }
  const elsewhere = { baseUrl: 'https://stranger.example/v1', apiKey: 'theirs-0123456789' }
  const changes = [
    ['PATCH', '/providers/lux', elsewhere],
    ['POST', '/providers', { ...provider, name: 'dux' }],
    ['POST', '/prices', { prices: [price] }],
    ['PUT', '/catalog', testCatalog],
    ['POST', '/routes/reset', { provider: 'sandbox', upstreamModel: 'sandbox-steady', what: 'circuit' }],
    ['DELETE', '/providers/lux', undefined],
  ] as const
  for (const [method, path, body] of changes) {
    const { status } = await api.ask(method, `/api/v1${path}`, { key: stranger, body })
    expect([path, status]).toEqual([path, 403])
  }
  expect((await api.ask('GET', '/api/v1/providers/lux', { key: stranger })).body).toMatchObject({
    baseUrl: provider.baseUrl,
  })
  await sql`
    insert into route_state (provider, upstream_model, last_outcome, last_message, last_failed_at)
    values ('sandbox', 'sandbox-steady', 'overloaded', 'no answer to: my secret plan', now())`.execute(api.db)
  const routes = async (key: string) => JSON.stringify((await api.ask('GET', '/api/v1/routes', { key })).body)
  expect(await routes(api.operatorKey)).toContain('secret plan')
  expect(await routes(stranger)).not.toContain('secret plan')
  // Any operator of the installation's own organisation may.
  const colleague = await makeKey(api, api.operatorKey, {})
  for (const [method, path, body] of changes) {
    const { status } = await api.ask(method, `/api/v1${path}`, { key: colleague, body })
    expect([path, status < 300]).toEqual([path, true])
  }
})

async function makeKey(api: TestApi, key: string, body: object): Promise<string> {
  return text(await api.make('/api/v1/keys', { key, body: { name: 'another', ...body } }), 'secret')
}

test("the installation's operator makes organisations, whose first key opens them and no other", async () => {
  const api = await useApi()
  const headers = { 'idempotency-key': 'once' }
  const request = { key: api.operatorKey, body: { name: 'second' }, headers }
  const made = await api.ask('POST', '/api/v1/organisations', request)
  const { operatorKey } = z
    .object({ operatorKey: z.object({ id: z.uuid(), secret: z.string(), scopes: z.array(z.string()) }) })
    .parse(made.body)
  expect([made.status, made.body['name'], operatorKey.scopes]).toEqual([201, 'second', ['admin', 'read']])
  const again = await api.ask('POST', '/api/v1/organisations', request)
  expect(again.body['id']).toBe(made.body['id'])
  expect(JSON.stringify(again.body)).not.toContain(operatorKey.secret)
  const key = operatorKey.secret
  expect((await listed(api, key)).map(({ name }) => name)).toEqual(['second'])
  const [ours] = await listed(api, api.operatorKey)
  expect((await api.ask('GET', `/api/v1/organisations/${ours?.id}`, { key })).status).toBe(404)
  await api.make('/api/v1/projects', { key, body: { name: 'theirs' } })
  expect((await api.ask('GET', '/api/v1/projects', { key: api.operatorKey })).body['projects']).toEqual([])
  const { body } = await api.ask('GET', '/api/v1/audit', { key })
  expect(z.array(z.looseObject({ action: z.string() })).parse(body['events'])).toMatchObject([
    { action: 'project.create' },
    { action: 'key.create', target: operatorKey.id },
  ])
  expect(JSON.stringify(body)).not.toContain(key)
})

test('no other operator makes one, nor a key that does', async () => {
  const api = await useApi()
  const key = await makeKey(api, api.operatorKey, {})
  const refusals = [
    await api.ask('POST', '/api/v1/organisations', { key, body: { name: 'second' } }),
    await api.ask('POST', '/api/v1/keys', { key, body: { name: 'x', scopes: ['admin', 'installation'] } }),
  ]
  const { body } = await api.ask('GET', '/api/v1/keys', { key })
  const keys = z.array(z.object({ id: z.string(), scopes: z.array(z.string()) })).parse(body['keys'])
  const installations = keys.find(({ scopes }) => scopes.includes('installation'))
  const rotate = `/api/v1/keys/${installations?.id}/rotate`
  refusals.push(await api.ask('POST', rotate, { key, body: { overlapSeconds: 60 } }))
  expect(refusals.map(({ status, body: { code } }) => [status, code])).toEqual([
    [403, 'forbidden'],
    [403, 'forbidden'],
    [403, 'forbidden'],
  ])
  const handedOn = await makeKey(api, api.operatorKey, { scopes: ['installation'] })
  await api.make('/api/v1/organisations', { key: handedOn, body: { name: 'second' } })
  expect((await api.ask('POST', '/api/v1/projects', { key: handedOn, body: { name: 'x' } })).status).toBe(403)
})

test('an organisation has the name that its operators give it, and is found again when the process starts', async () => {
  const api = await useApi()
  await makeOperator(api.db, 'another')
  const [{ id } = { id: '' }] = await listed(api, api.operatorKey)
  const rename = (name: string) =>
    api.ask('PATCH', `/api/v1/organisations/${id}`, { key: api.operatorKey, body: { name } })
  expect((await rename('ours')).body).toMatchObject({ id, name: 'ours' })
  expect((await rename('ours')).status).toBe(200)
  const configured = { name: 'default', nowMs: Date.now(), operatorKey: undefined, makeKey: () => 'unused' }
  expect(await bootstrapOrganisation(api.db, configured)).toBeUndefined()
  expect((await listed(api, api.operatorKey)).map(({ name }) => name)).toEqual(['ours'])
})
