import { buildApi } from '#api/api.ts'
import { testDeps } from '#test/support/api-deps.ts'
import { DOCUMENT_PATH } from '#api/documentation.ts'
import { connectDatabase } from '#db/database.ts'
import { findFreePort } from '#local/free-port.ts'
import { describe, expect, onTestFinished, test } from 'vitest'
import { makeTenant, runBody, useApi } from '#test/support/api.ts'

describe('keys', () => {
  test('no key, an unknown key and something that is no key are answered 401, with what to send', async () => {
    const api = await useApi()
    for (const headers of [
      {},
      { authorization: 'Bearer purser_op_aaaaaaaaaaaaaaaaaaaaaaaa' },
      { authorization: 'Basic x' },
    ]) {
      const { status, body, headers: answered } = await api.ask('GET', '/api/v1/projects', { headers })
      expect([status, body['code']]).toEqual([401, 'unauthorized'])
      expect(body['remedy']).toContain('Authorization: Bearer')
      expect(answered['www-authenticate']).toBe('Bearer')
    }
  })

  test('a key is checked before the body is read', async () => {
    const api = await useApi()
    const { status } = await api.ask('POST', '/api/v1/projects', { body: 'x'.repeat(2_000_000) })
    expect(status).toBe(401)
  })

  test('a project key may not do what operators do, and operators start no runs', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const forbidden = [
      ['POST', '/api/v1/projects', { name: 'mine' }],
      ['GET', '/api/v1/projects', undefined],
      ['POST', `/api/v1/projects/${tenant.projectId}/keys`, { name: 'more' }],
      ['GET', `/api/v1/projects/${tenant.projectId}/keys`, undefined],
      ['DELETE', `/api/v1/keys/${tenant.keyId}`, undefined],
      ['POST', `/api/v1/projects/${tenant.projectId}/wallet`, {}],
      ['POST', '/api/v1/deposits', {}],
    ] as const
    for (const [method, path, body] of forbidden) {
      const answer = await api.ask(method, path, { key: tenant.key, body })
      expect([path, answer.status, answer.body['code']]).toEqual([path, 403, 'forbidden'])
    }
    const answer = await api.ask('POST', '/api/v1/runs', { key: api.operatorKey, body: runBody() })
    expect([answer.status, answer.body['code']]).toEqual([403, 'forbidden'])
  })
})

describe('requests that are none', () => {
  test('an unknown address, a wrong media type, broken JSON and an empty body are problems, not pages', async () => {
    const api = await useApi()
    const key = api.operatorKey
    const unknown = await api.ask('GET', '/api/v1/nothing?here=1', { key })
    expect([unknown.status, unknown.body['code']]).toEqual([404, 'not_found'])
    const headers = { authorization: `Bearer ${key}` }
    for (const [type, payload, status] of [
      ['text/plain', 'name=x', 415],
      ['application/xml', '<name/>', 415],
      ['application/json', '{"name":', 400],
      ['application/json', '', 400],
      ['application/json', '{"__proto__": {"name": "x"}}', 400],
      ['application/json', JSON.stringify({ name: 'x'.repeat(1_100_000) }), 413],
    ] as const) {
      const response = await api.app.inject({
        method: 'POST',
        url: '/api/v1/projects',
        headers: { ...headers, 'content-type': type },
        payload,
      })
      expect([type, payload.slice(0, 30), response.statusCode]).toEqual([type, payload.slice(0, 30), status])
      expect(response.headers['content-type']).toBe('application/problem+json')
      expect(response.json()).toMatchObject({ status, type: expect.stringContaining('urn:purser:problem:') })
    }
  })

  test('a body without a content type is none', async () => {
    const api = await useApi()
    const answer = await api.ask('POST', '/api/v1/projects', { key: api.operatorKey })
    expect([answer.status, answer.body['code']]).toEqual([400, 'invalid_request'])
  })

  test('all faults of a request are named at once, unknown fields too', async () => {
    const api = await useApi()
    const { projectId } = await makeTenant(api)
    const { body } = await api.ask('GET', `/api/v1/runs?limit=0&state=odd&more=1&projectId=${projectId}`, {
      key: api.operatorKey,
    })
    expect(body).toMatchObject({ code: 'invalid_request', status: 400 })
    expect(body['errors']).toEqual([
      { path: 'query.limit', message: expect.any(String) },
      { path: 'query.state', message: expect.any(String) },
      { path: 'query.more', message: 'is not known here' },
    ])
  })
})

describe('the document', () => {
  test('describes every route with its answers and problems, and has a page', async () => {
    const api = await useApi()
    const document = (await api.app.inject({ method: 'GET', url: DOCUMENT_PATH })).json()
    expect(document.openapi).toBe('3.1.0')
    const operations = Object.entries<Record<string, { summary?: string; responses: object; security?: unknown }>>(
      document.paths,
    ).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ path, method, operation })))
    expect(operations.length).toBeGreaterThanOrEqual(25)
    for (const { path, method, operation } of operations) {
      expect(operation.summary, `${method} ${path}`).toBeTruthy()
      if (path === '/healthz') continue
      expect(Object.keys(operation.responses), `${method} ${path}`).toEqual(
        expect.arrayContaining(['401', '500', '503']),
      )
      const scheme = path === '/api/v1/payments/stripe' ? 'signature' : 'key'
      expect(operation.security).toEqual([{ [scheme]: [] }])
    }
    const page = await api.app.inject({ method: 'GET', url: '/api/docs' })
    expect(page.statusCode).toBeLessThan(400)
  })
})

describe('health', () => {
  test('is ok, or degraded while Temporal is away', async () => {
    const well = await useApi()
    expect((await well.ask('GET', '/healthz')).body).toEqual({ status: 'ok', database: 'up', temporal: 'up' })
    const alone = await useApi({ isTemporalUp: () => Promise.reject(new Error('nobody there')) })
    const answer = await alone.ask('GET', '/healthz')
    expect([answer.status, answer.body['status']]).toEqual([200, 'degraded'])
  })

  test('a database that is away is a 503 that says so, and nothing of its error', async () => {
    const db = connectDatabase({ url: `postgres://u:p@127.0.0.1:${await findFreePort()}/purser`, maxConnections: 2 })
    const app = await buildApi(testDeps({ db }))
    onTestFinished(async () => {
      await app.close()
      await db.destroy()
    })
    expect((await app.inject({ method: 'GET', url: '/healthz' })).statusCode).toBe(503)
    const response = await app.inject({
      method: 'GET',
      url: '/api/v1/projects',
      headers: { authorization: `Bearer purser_op_${'a'.repeat(43)}` },
    })
    expect(response.statusCode).toBe(503)
    expect(response.headers['retry-after']).toBe('1')
    expect(response.json()).toMatchObject({ code: 'store_unavailable', detail: 'The database cannot be reached.' })
    expect(response.body).not.toContain('ECONNREFUSED')
  })
})
