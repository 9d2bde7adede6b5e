import { expect, test } from 'vitest'
import { z } from 'zod'
import { call, makeKey } from '../support/api-keys.ts'
import { runBody, text, useApi } from '../support/api.ts'
import { useGateway } from '../support/gateway.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'

test('a rotated key hands over its rights, limits and schedules, and ends when the overlap is over', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const operator = api.operatorKey
  const rights = { scopes: ['calls', 'runs', 'read'], constraints: { models: ['steady'] }, allowedIps: ['127.0.0.1'] }
  const old = await makeKey(api, tenant, rights)
  await api.make('/api/v1/limits', {
    key: operator,
    body: { scope: 'key', subjectId: old.id, measure: 'calls', period: 'day', cap: 3 },
  })
  const schedule = await api.make('/api/v1/schedules', {
    key: old.secret,
    body: { name: 'hourly', every: 3_600, run: runBody() },
  })
  expect(await call(gateway, old.secret)).toEqual([200, null])
  const path = `/api/v1/keys/${old.id}/rotate`
  const headers = { 'idempotency-key': 'once' }
  const made = await api.ask('POST', path, { key: operator, body: { overlapSeconds: 3_600 }, headers })
  expect(made.body).toMatchObject({ ...rights, allowedIps: ['127.0.0.1/32'], rotatedFrom: old.id, expiresAt: null })
  const again = await api.ask('POST', path, { key: operator, body: { overlapSeconds: 3_600 }, headers })
  expect(again.body).toMatchObject({ id: text(made.body, 'id'), remedy: expect.any(String) })
  expect(again.body['secret']).toBeUndefined()
  const twice = await api.ask('POST', path, { key: operator, body: { overlapSeconds: 3_600 } })
  expect([twice.status, twice.body['code']]).toEqual([409, 'key_rotated'])

  const secret = text(made.body, 'secret')
  expect(await call(gateway, old.secret)).toEqual([200, null])
  expect(await call(gateway, secret)).toEqual([200, null])
  // A new secret is no new budget.
  expect(await call(gateway, secret)).toEqual([429, 'rate_limit_exceeded'])
  expect(await call(gateway, old.secret)).toEqual([429, 'rate_limit_exceeded'])
  const moved = await api.ask('GET', `/api/v1/schedules/${text(schedule, 'id')}`, { key: secret })
  expect(moved.body).toMatchObject({ keyId: text(made.body, 'id'), state: 'active' })

  const end = api.db.updateTable('api_key').set({ expires_at: new Date() }).where('id', '=', old.id)
  await end.execute()
  await pollUntil(async () => (await call(gateway, old.secret))[0] === 401, { what: 'the end of the overlap' })
  const envelopes = () => api.db.selectFrom('envelope').select('gate').where('api_key_id', '=', old.id).execute()
  await pollUntil(async () => (await envelopes()).every(({ gate }) => gate === 'closed'), { what: 'its money at home' })
  expect((await api.ask('GET', '/api/v1/runs', { key: secret })).status).toBe(200)
  const ended = await api.ask('POST', path, { key: operator, body: { overlapSeconds: 0 } })
  expect([ended.status, ended.body['code']]).toEqual([409, 'key_ended'])

  const next = await api.make(`/api/v1/keys/${text(made.body, 'id')}/rotate`, {
    key: operator,
    body: { overlapSeconds: 0 },
  })
  expect((await api.ask('GET', '/api/v1/runs', { key: secret })).status).toBe(401)
  expect(await call(gateway, text(next, 'secret'))).toEqual([429, 'rate_limit_exceeded'])
  await expectVerified(api)
})

test('the key of an external run keeps to the places and the time of the key that opened it, and is not rotated', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const expiresAt = new Date(Date.now() + 3_600_000).toISOString()
  const opener = await makeKey(api, tenant, { allowedIps: ['127.0.0.1'], expiresAt })
  const { onExhausted: _, agent: __, input: ___, ...order } = runBody()
  const opened = await api.make('/api/v1/runs/external', { key: opener.secret, body: { ...order, idleSeconds: 60 } })
  const { id, secret } = z.object({ id: z.string(), secret: z.string() }).parse(opened['key'])
  expect(await call(gateway, secret)).toEqual([200, null])
  const shown = await api.ask('GET', `/api/v1/keys/${id}`, { key: api.operatorKey })
  expect(shown.body).toMatchObject({ allowedIps: ['127.0.0.1/32'], expiresAt, runId: expect.any(String) })
  const rotated = await api.ask('POST', `/api/v1/keys/${id}/rotate`, {
    key: api.operatorKey,
    body: { overlapSeconds: 0 },
  })
  expect([rotated.status, rotated.body['code']]).toEqual([409, 'key_ended'])
})

test('operator keys are made, listed, rotated and revoked, and the last one that matters is kept', async () => {
  const api = await useApi()
  const first = api.operatorKey
  const list = async () =>
    z
      .array(z.looseObject({ id: z.string(), revokedAt: z.string().nullable() }))
      .parse((await api.ask('GET', '/api/v1/keys', { key: first })).body['keys'])
  const [own] = await list()
  const revoke = (id: string, key: string) => api.ask('DELETE', `/api/v1/keys/${id}`, { key })
  expect((await revoke(own?.id ?? '', first)).body['code']).toBe('last_operator')
  const make = async (body: object) => api.make('/api/v1/keys', { key: first, body: { name: 'two', ...body } })
  const reading = await make({ scopes: ['read'] })
  const passing = await make({ expiresAt: new Date(Date.now() + 3_600_000).toISOString() })
  expect((await revoke(own?.id ?? '', first)).body['code']).toBe('last_operator')
  expect((await api.ask('GET', '/api/v1/projects', { key: text(reading, 'secret') })).status).toBe(200)
  const project = { key: text(reading, 'secret'), body: { name: 'mine' } }
  expect((await api.ask('POST', '/api/v1/projects', project)).status).toBe(403)
  expect((await api.ask('POST', '/api/v1/projects', { ...project, key: text(passing, 'secret') })).status).toBe(201)

  const rotated = await api.make(`/api/v1/keys/${own?.id}/rotate`, { key: first, body: { overlapSeconds: 600 } })
  expect(text(rotated, 'secret')).toMatch(/^purser_op_/)
  const both = await Promise.all([
    revoke(text(rotated, 'id'), first),
    make({}).then((made) => revoke(text(made, 'id'), first)),
  ])
  // The first one ends with its overlap: of the other two one has to stay.
  expect(both.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([204, 409])
  expect((await list()).filter(({ revokedAt }) => revokedAt !== null)).toHaveLength(1)
})
