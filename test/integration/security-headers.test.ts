import { withoutSecrets } from '#api/log.ts'
import { expect, test } from 'vitest'
import { makeTenant, useApi } from '../support/api.ts'
import { useGateway } from '../support/gateway.ts'

const ORIGIN = { origin: 'https://elsewhere.example', 'access-control-request-method': 'POST' }

test('no answer lets a page of another origin in, is kept on the way, or is taken for something else', async () => {
  const { api, tenant, url } = await useGateway()
  const ofProject = { ...ORIGIN, authorization: `Bearer ${tenant.key}` }
  const ofOperator = { ...ORIGIN, authorization: `Bearer ${api.operatorKey}` }
  const json = { 'content-type': 'application/json' }
  const chat = JSON.stringify({ model: 'steady', messages: [{ role: 'user', content: 'hello' }], max_tokens: 20 })
  const streamed = JSON.stringify({ ...JSON.parse(chat), stream: true })
  const asked: readonly (readonly [number, string, RequestInit])[] = [
    [200, '/v1/models', { headers: ofProject }],
    [200, '/v1/chat/completions', { method: 'POST', headers: { ...ofProject, ...json }, body: chat }],
    [200, '/v1/chat/completions', { method: 'POST', headers: { ...ofProject, ...json }, body: streamed }],
    [401, '/v1/models', { headers: ORIGIN }],
    [404, '/v1/nothing', { headers: ofProject }],
    [404, '/v1/chat/completions', { method: 'OPTIONS', headers: ofProject }],
    [401, '/v1/chat/completions', { method: 'OPTIONS', headers: ORIGIN }],
    [404, '/api/v1/projects', { method: 'OPTIONS', headers: ORIGIN }],
    [200, '/api/v1/projects', { headers: ofOperator }],
    [
      201,
      `/api/v1/projects/${tenant.projectId}/keys`,
      { method: 'POST', headers: { ...ofOperator, ...json }, body: '{"name":"second"}' },
    ],
    [401, '/api/v1/projects', { headers: ORIGIN }],
    [400, '/api/v1/runs/%ff', { headers: ORIGIN }],
    [200, '/healthz', { headers: ORIGIN }],
    [200, '/api/openapi.json', { headers: ORIGIN }],
    [404, '/', { headers: ORIGIN }],
  ]
  for (const [status, path, init] of asked) {
    const answer = await fetch(`${url}${path}`, init)
    await answer.text()
    const what = `${init.method ?? 'GET'} ${path}`
    expect([what, answer.status]).toEqual([what, status])
    expect([what, answer.headers.get('x-content-type-options')]).toEqual([what, 'nosniff'])
    expect([what, answer.headers.get('cache-control')]).toEqual([what, 'no-store'])
    expect([what, answer.headers.get('x-frame-options')]).toEqual([what, 'DENY'])
    expect([what, [...answer.headers.keys()].filter((name) => name.startsWith('access-control-'))]).toEqual([what, []])
  }
})

test('no line of the log has a secret in it, wherever it came from', async () => {
  const lines: string[] = []
  const log = { level: 'trace', stream: { write: (line: string) => void lines.push(line) } }
  const api = await useApi({
    log,
    async extend(app) {
      app.post('/fail', (request) => {
        request.log.info({ headers: request.headers }, 'as it came')
        throw new Error(
          `the provider refused ${request.headers.authorization} and ${String(request.headers['x-api-key'])}`,
        )
      })
    },
  })
  const tenant = await makeTenant(api)
  const secrets = [tenant.key, api.operatorKey, 'sk-provider-0123456789abcdef', 'Zm9vOmJhcmJheg==']
  const headers = [
    { authorization: `Bearer ${tenant.key}`, 'x-api-key': 'sk-provider-0123456789abcdef' },
    { authorization: `Bearer ${api.operatorKey}`, 'x-api-key': 'no-form-that-is-known' },
    { authorization: 'Basic Zm9vOmJhcmJheg==', cookie: 'session=no-form-that-is-known' },
  ]
  for (const each of headers) {
    await api.app.inject({ method: 'POST', url: '/fail', headers: each })
    await api.app.inject({ method: 'GET', url: `/api/v1/runs?key=${tenant.key}`, headers: each })
  }
  const text = lines.join('')
  expect(text).toContain('as it came')
  expect(text).toContain('the provider refused')
  expect(secrets.filter((secret) => text.includes(secret))).toEqual([])
  expect(text).not.toContain('session=no-form')
})

test('what opens something is taken out of a line, and its form stays', () => {
  expect(withoutSecrets('{"err":{"message":"postgres://app:hush@db:5432/purser"}}')).toBe(
    '{"err":{"message":"postgres://app:…@db:5432/purser"}}',
  )
  const line = withoutSecrets('{"authorization":"Digest a=\\"b\\"","x-api-key":"plain","level":30}')
  expect(JSON.parse(line)).toEqual({ authorization: '…', 'x-api-key': '…', level: 30 })
})
