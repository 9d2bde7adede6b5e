import { get } from 'node:http'
import { makeTenant, startTestRun, useApi } from '#test/support/api.ts'
import { expect, test } from 'vitest'

test('a text that Postgres cannot store is refused, and says so', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  for (const [bad, reason] of [
    ['a\u0000b', 'U+0000'],
    ['a\ud800b', 'surrogate'],
  ] as const) {
    for (const [path, key, body] of [
      ['/api/v1/projects', api.operatorKey, { name: bad }],
      [`/api/v1/projects/${tenant.projectId}/keys`, api.operatorKey, { name: bad }],
      ['/api/v1/corpora', tenant.key, { name: bad }],
      ['/api/v1/routes/reset', api.operatorKey, { provider: bad, upstreamModel: 'm', what: 'circuit' }],
    ] as const) {
      const answer = await api.ask('POST', path, { key, body })
      expect([path, answer.status, answer.body['code']]).toEqual([path, 400, 'invalid_request'])
      expect(answer.body['detail']).toContain(reason)
    }
  }
})

test('a body that is nested too deep is refused, with an Idempotency-Key too', async () => {
  const api = await useApi()
  const body = `${'['.repeat(5_000)}${']'.repeat(5_000)}`
  const headers = {
    authorization: `Bearer ${api.operatorKey}`,
    'content-type': 'application/json',
    'idempotency-key': 'deep',
  }
  const answer = await api.ask('POST', '/api/v1/projects', { headers, body })
  expect([answer.status, answer.body['code']]).toEqual([400, 'invalid_request'])
})

test('an answer names fifty faults, not sixty thousand', async () => {
  const api = await useApi()
  const body = Object.fromEntries(Array.from({ length: 5_000 }, (_, index) => [`k${index}`, 1]))
  const answer = await api.ask('POST', '/api/v1/projects', { key: api.operatorKey, body })
  expect(answer.status).toBe(400)
  expect(answer.body['errors']).toHaveLength(50)
})

test('an address that is none is answered with a problem, which does not repeat it', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  for (const [path, status, code] of [
    ['/api/v1/runs/%ff', 400, 'invalid_request'],
    [`/api/v1/runs/${'a'.repeat(3_000)}`, 404, 'not_found'],
  ] as const) {
    const answer = await api.app.inject({ method: 'GET', url: path, headers: { authorization: `Bearer ${key}` } })
    expect([answer.statusCode, answer.headers['content-type']]).toEqual([status, 'application/problem+json'])
    expect(answer.json()).toMatchObject({ status, code, remedy: expect.any(String) })
    expect(answer.body.length).toBeLessThan(500)
  }
})

test('streams whose clients left before they began leave room for others', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const runId = await startTestRun(api, tenant)
  const url = await api.app.listen({ host: '127.0.0.1', port: 0 })
  const address = `${url}/api/v1/runs/${runId}/events`
  const headers = { authorization: `Bearer ${tenant.key}` }
  const leaveAfter = (delayMs: number) =>
    new Promise<void>((resolve) => {
      const asked = get(address, { headers }, (response) => response.on('error', () => {}))
      asked.on('error', () => {})
      asked.on('close', resolve)
      setTimeout(() => asked.destroy(), delayMs)
    })
  for (let round = 0; round < 6; round += 1) {
    await Promise.all(Array.from({ length: 40 }, (_, index) => leaveAfter(Math.floor(index / 4))))
  }
  const controller = new AbortController()
  const stream = await fetch(address, { headers, signal: controller.signal })
  expect(stream.status).toBe(200)
  await stream.body?.cancel()
  controller.abort()
})

test('who tries keys is refused before they are looked up, and good keys go on to open', async () => {
  const api = await useApi({ failuresOfAddress: 3 })
  const tenant = await makeTenant(api)
  const guess = (n: number) => api.ask('GET', '/api/v1/runs', { key: `purser_pk_${String(n).padStart(43, '0')}` })
  for (let n = 0; n < 3; n += 1) expect((await guess(n)).status).toBe(401)
  const refused = await guess(3)
  expect([refused.status, refused.body['code'], refused.headers['retry-after']]).toEqual([
    429,
    'too_many_failures',
    '60',
  ])
  // One that was never used here waits as guesses do, one that was used does not.
  expect((await api.ask('GET', '/api/v1/runs', { key: tenant.key })).status).toBe(429)
  expect((await api.ask('GET', '/api/v1/projects', { key: api.operatorKey })).status).toBe(200)
})
