import OpenAI from 'openai'
import { expect, test } from 'vitest'
import { call, makeKey, said } from '../support/api-keys.ts'
import { makeTenant, runBody, text, usd, useApi, type TestApi } from '../support/api.ts'
import { useGateway } from '../support/gateway.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { startSecondServer } from '../support/second-server.ts'

test('a key opens what its scopes name, and nothing else', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const start = (key: string) => api.ask('POST', '/api/v1/runs', { key, body: runBody() })
  const read = (key: string) => api.ask('GET', '/api/v1/runs', { key })

  const calls = await makeKey(api, tenant, { scopes: ['calls'] })
  expect(await call(gateway, calls.secret)).toEqual([200, null])
  expect(said(await read(calls.secret))).toEqual([403, 'forbidden', 'This key was made without the scope read.'])
  expect(said(await start(calls.secret))).toEqual([403, 'forbidden', 'This key was made without the scope runs.'])

  const runs = await makeKey(api, tenant, { scopes: ['runs', 'read'] })
  expect((await start(runs.secret)).status).toBe(201)
  expect((await read(runs.secret)).status).toBe(200)
  expect(await call(gateway, runs.secret)).toEqual([403, 'key_not_allowed'])

  const reading = await makeKey(api, tenant, { scopes: ['read'] })
  expect((await read(reading.secret)).status).toBe(200)
  expect((await start(reading.secret)).status).toBe(403)
  const limit = { scope: 'key', subjectId: tenant.keyId, measure: 'calls', period: 'day', cap: 1 }
  expect((await api.ask('POST', '/api/v1/limits', { key: reading.secret, body: limit })).status).toBe(403)

  const odd = { name: 'odd', scopes: ['admin'] }
  const path = `/api/v1/projects/${tenant.projectId}/keys`
  expect((await api.ask('POST', path, { key: api.operatorKey, body: odd })).status).toBe(400)
  expect(await gateway.sandbox.readLog()).toHaveLength(1)
  await expectVerified(api)
})

test('a key whose time is over opens nothing, is revoked, and its money goes home', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const key = await makeKey(api, tenant, { expiresAt: new Date(Date.now() + 20_000).toISOString() })
  expect(await call(gateway, key.secret)).toEqual([200, null])
  const expireNow = api.db.updateTable('api_key').set({ expires_at: new Date() }).where('id', '=', key.id)
  await expireNow.execute()
  await pollUntil(async () => (await call(gateway, key.secret))[0] === 401, { what: 'the end of the key' })
  const read = await api.ask('GET', '/api/v1/runs', { key: key.secret })
  expect(said(read)).toEqual([401, 'unauthorized', 'This API key has expired.'])
  const isClosed = async () => {
    const envelope = await api.db
      .selectFrom('envelope')
      .select('gate')
      .where('api_key_id', '=', key.id)
      .executeTakeFirstOrThrow()
    return envelope.gate === 'closed'
  }
  await pollUntil(isClosed, { what: 'its money at home' })
  const shown = await api.ask('GET', `/api/v1/keys/${key.id}`, { key: api.operatorKey })
  expect(shown.body).toMatchObject({ id: key.id, revokedAt: expect.any(String) })
  const events = await api.ask('GET', '/api/v1/audit?action=key.expire', { key: api.operatorKey })
  expect(events.body).toMatchObject({ events: [{ target: key.id, keyId: null, projectId: tenant.projectId }] })
  const late = { name: 'late', expiresAt: new Date(Date.now() - 1).toISOString() }
  const path = `/api/v1/projects/${tenant.projectId}/keys`
  expect((await api.ask('POST', path, { key: api.operatorKey, body: late })).status).toBe(400)
  await expectVerified(api)
})

test('what a key has lost it does not get back, not even by hand', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const change = (set: object) => api.db.updateTable('api_key').set(set).where('id', '=', tenant.keyId).execute()
  await change({ expires_at: new Date(Date.now() + 60_000) })
  await expect(change({ expires_at: null })).rejects.toThrow('ends sooner')
  await change({ revoked_at: new Date() })
  await expect(change({ revoked_at: null })).rejects.toThrow('is revoked')
  await expect(change({ scopes: ['calls'] })).rejects.toThrow('permission denied')
})

test('a key is used from its addresses only, and proxies are believed that are trusted', async () => {
  const allowedIps = ['10.1.0.1/16', '2001:db8::/32']
  const from = async (api: TestApi, key: string, forwarded?: string) => {
    const headers = forwarded === undefined ? {} : { 'x-forwarded-for': forwarded }
    return (await api.ask('GET', '/api/v1/runs', { key, headers })).status
  }
  const gateway = await useGateway()
  const { secret } = await makeKey(gateway.api, gateway.tenant, { allowedIps })
  const refused = await gateway.api.ask('GET', '/api/v1/runs', { key: secret })
  expect(said(refused)).toEqual([403, 'forbidden', 'This key may not be used from 127.0.0.1.'])
  expect(await from(gateway.api, secret, '10.1.2.3')).toBe(403)
  expect(await call(gateway, secret)).toEqual([403, 'key_not_allowed'])
  const local = await makeKey(gateway.api, gateway.tenant, { allowedIps: ['127.0.0.1'] })
  expect(await call(gateway, local.secret)).toEqual([200, null])

  const behind = await useApi({ trustedProxies: ['127.0.0.0/8'] })
  const tenant = await makeTenant(behind)
  const own = await makeKey(behind, tenant, { allowedIps })
  const listed = await behind.ask('GET', `/api/v1/keys/${own.id}`, { key: behind.operatorKey })
  expect(listed.body).toMatchObject({ allowedIps: ['10.1.0.0/16', '2001:db8::/32'] })
  const asked: Record<string, number> = {}
  const places = [
    '10.1.2.3',
    '10.2.0.1',
    '2001:db8::7',
    '2001:db9::7',
    '10.1.2.3, 10.2.0.1',
    'nonsense',
    '::ffff:10.1.9.9',
  ]
  for (const place of places) asked[place] = await from(behind, own.secret, place)
  expect(asked).toEqual({
    '10.1.2.3': 200,
    '10.2.0.1': 403,
    '2001:db8::7': 200,
    '2001:db9::7': 403,
    '10.1.2.3, 10.2.0.1': 403,
    nonsense: 403,
    '::ffff:10.1.9.9': 200,
  })
  expect(await from(behind, own.secret)).toBe(403)
  const odd = { name: 'odd', allowedIps: ['10.0.0.0/40'] }
  const path = `/api/v1/projects/${tenant.projectId}/keys`
  expect((await behind.ask('POST', path, { key: behind.operatorKey, body: odd })).status).toBe(400)
})

test('a revoked key opens nothing a second later, in any process', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const urls = [gateway.url, await startSecondServer(api)]
  const key = await makeKey(api, tenant)
  const statusAt = async (url: string, path: string) =>
    (await fetch(`${url}${path}`, { headers: { authorization: `Bearer ${key.secret}` } })).status
  for (const url of urls)
    expect([await statusAt(url, '/v1/models'), await statusAt(url, '/api/v1/runs')]).toEqual([200, 200])
  // Both know the key, and have just looked.
  expect((await api.ask('DELETE', `/api/v1/keys/${key.id}`, { key: api.operatorKey })).status).toBe(204)
  const revokedMs = performance.now()
  const lastTaken = urls.map(async (url) => {
    for (let takenMs = revokedMs; ;) {
      const sentMs = performance.now()
      if ((await statusAt(url, '/v1/models')) !== 200) return takenMs - revokedMs
      takenMs = sentMs
    }
  })
  for (const ms of await Promise.all(lastTaken)) expect(ms).toBeLessThan(1_000)
  for (const url of urls) expect(await statusAt(url, '/api/v1/runs')).toBe(401)
  expect(await call(gateway, key.secret)).toEqual([401, 'invalid_api_key'])
})

test('when a key was last used is known to the minute, by one write for many uses', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const show = async () => (await api.ask('GET', `/api/v1/keys/${tenant.keyId}`, { key: api.operatorKey })).body
  for (let use = 0; use < 5; use += 1) await gateway.client().models.list()
  await pollUntil(async () => (await show())['lastUsedAt'] !== null, { what: 'the use' })
  expect(text(await show(), 'lastUsedAt')).toMatch(/:00\.000Z$/)
})

test('a window that a key has used up is named, with when it ends', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const limit = async (body: object) =>
    api.make('/api/v1/limits', { key: api.operatorKey, body: { scope: 'key', subjectId: tenant.keyId, ...body } })
  await limit({ measure: 'money', period: 'day', cap: usd('0.0001') })
  // It would not fit into a whole hour either: there is nothing to wait for.
  await limit({ measure: 'money', period: 'hour', cap: usd('0.0002') })
  const messages = [{ role: 'user' as const, content: 'When was the mill built?' }]
  const refused: unknown = await gateway
    .client()
    .chat.completions.create({ model: 'steady', messages, max_tokens: 4_000 })
    .catch((error: unknown) => error)
  if (!(refused instanceof OpenAI.APIError)) throw new Error('it was answered')
  expect(refused).toMatchObject({ status: 402, code: 'insufficient_quota' })
  expect(refused.error).toMatchObject({ limit: 'key limit per day', resets_at: expect.any(String) })

  const other = await makeKey(api, tenant)
  await limit({ subjectId: other.id, measure: 'calls', period: 'month', cap: 1 })
  expect(await call(gateway, other.secret)).toEqual([200, null])
  const busy: unknown = await gateway
    .client(other.secret)
    .chat.completions.create({ model: 'steady', messages, max_tokens: 20 })
    .catch((error: unknown) => error)
  if (!(busy instanceof OpenAI.APIError)) throw new Error('it was answered')
  expect(busy).toMatchObject({ status: 429, code: 'rate_limit_exceeded' })
  expect(busy.error).toMatchObject({ limit: 'key limit per month', remaining: '0', resets_at: expect.any(String) })
  expect(Number(busy.headers?.get('retry-after'))).toBeGreaterThan(0)

  const small = await makeKey(api, tenant)
  await limit({ subjectId: small.id, measure: 'tokens', period: 'hour', cap: 10 })
  const never: unknown = await gateway
    .client(small.secret)
    .chat.completions.create({ model: 'steady', messages, max_tokens: 20 })
    .catch((error: unknown) => error)
  if (!(never instanceof OpenAI.APIError)) throw new Error('it was answered')
  expect(never).toMatchObject({ status: 402, code: 'insufficient_quota' })
  expect(never.headers?.get('retry-after')).toBeNull()
  expect(never.error).toMatchObject({ limit: 'key limit per hour', remedy: expect.stringMatching(/^Send a smaller/) })
  await expectVerified(api)
})

test('a window of an hour that a key has used up is named as longer ones are', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const messages = [{ role: 'user' as const, content: 'When was the mill built?' }]
  const refusedBy = async (limit: object) => {
    const { id: subjectId, secret } = await makeKey(api, tenant)
    const body = { scope: 'key', subjectId, period: 'hour', ...limit }
    await api.make('/api/v1/limits', { key: api.operatorKey, body })
    const ask = () => gateway.client(secret).chat.completions.create({ model: 'steady', messages, max_tokens: 20 })
    await ask()
    const refused: unknown = await ask().catch((error: unknown) => error)
    if (!(refused instanceof OpenAI.APIError)) throw new Error('it was answered')
    return refused
  }
  const named = { limit: 'key limit per hour', spent: expect.any(String), resets_at: expect.any(String) }
  const busy = await refusedBy({ measure: 'calls', cap: 1 })
  expect(busy).toMatchObject({ status: 429, error: { ...named, needed: '1', remaining: '0' } })
  expect(Number(busy.headers?.get('retry-after'))).toBeGreaterThan(0)
  // Of a life no window ends, and money does not help against a number of calls.
  const over = await refusedBy({ measure: 'calls', period: 'life', cap: 1 })
  expect(over).toMatchObject({
    status: 402,
    error: { remedy: expect.stringMatching(/^Send a smaller .* limit raised/) },
  })
  // The worst case of one of them is just less than that.
  const spent = await refusedBy({ measure: 'money', cap: usd('0.00006') })
  expect(spent).toMatchObject({ status: 402, error: { ...named, currency: 'USD' } })
  expect(spent.headers?.get('retry-after')).toBeNull()
  await expectVerified(api)
})
