import { expect, test } from 'vitest'
import { makeTenant, runBody, startTestRun, text, usd, useApi } from '#test/support/api.ts'

const headers = { 'idempotency-key': 'order-17' }

test('the same request again is answered with the first answer, however its JSON is written', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const body = runBody()
  const first = await api.ask('POST', '/api/v1/runs', { key: tenant.key, headers, body })
  const turned = Object.fromEntries(Object.entries(body).toReversed())
  const again = await api.ask('POST', '/api/v1/runs', { key: tenant.key, headers, body: turned })
  expect([first.status, again.status]).toEqual([201, 201])
  expect(again.body).toEqual(first.body)
  expect([first.headers['idempotency-replayed'], again.headers['idempotency-replayed']]).toEqual([undefined, 'true'])
  expect(await api.db.selectFrom('run').select('id').execute()).toEqual([{ id: first.body['id'] }])
})

test('the same key with another body or path is refused and has no effect', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const first = await api.ask('POST', '/api/v1/runs', { key: tenant.key, headers, body: runBody() })
  const other = await api.ask('POST', '/api/v1/runs', {
    key: tenant.key,
    headers,
    body: runBody({ onExhausted: 'cancel' }),
  })
  expect([other.status, other.body['code']]).toEqual([422, 'idempotency_mismatch'])
  const path = `/api/v1/runs/${text(first.body, 'id')}/cancel`
  const elsewhere = await api.ask('POST', path, { key: tenant.key, headers, body: {} })
  expect([elsewhere.status, elsewhere.body['code']]).toEqual([422, 'idempotency_mismatch'])
  expect(await api.db.selectFrom('command').select('kind').execute()).toEqual([{ kind: 'start' }])
})

test('twenty at once have one effect, and all get its answer', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const runId = await startTestRun(api, tenant)
  const body = { pockets: [{ balanceClass: 'direct', amount: usd('0.25') }] }
  const answers = await Promise.all(
    Array.from({ length: 20 }, () =>
      api.ask('POST', `/api/v1/runs/${runId}/top-up`, { key: tenant.key, headers, body }),
    ),
  )
  expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([202]))
  expect(new Set(answers.map((answer) => JSON.stringify(answer.body))).size).toBe(1)
  expect(answers.filter((answer) => answer.headers['idempotency-replayed'] === undefined)).toHaveLength(1)
  const run = await api.ask('GET', `/api/v1/runs/${runId}`, { key: tenant.key })
  expect(run.body).toMatchObject({ envelope: { pockets: [{ funded: usd('1.250000') }] } })
})

test('projects do not see each other’s keys of requests', async () => {
  const api = await useApi()
  const one = await makeTenant(api)
  const two = await makeTenant(api)
  const first = await api.ask('POST', '/api/v1/runs', { key: one.key, headers, body: runBody() })
  const second = await api.ask('POST', '/api/v1/runs', { key: two.key, headers, body: runBody() })
  expect([first.status, second.status]).toEqual([201, 201])
  expect(second.body['id']).not.toBe(first.body['id'])
})

test('a refusal leaves nothing behind: the same request succeeds once the money is there', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const body = runBody({ envelope: { pockets: [{ balanceClass: 'direct', amount: usd('11') }] } })
  expect((await api.ask('POST', '/api/v1/runs', { key: tenant.key, headers, body })).status).toBe(402)
  await api.make('/api/v1/deposits', {
    key: api.operatorKey,
    body: { walletId: tenant.walletId, balanceClass: 'direct', amount: usd('5'), reference: 'more' },
  })
  expect((await api.ask('POST', '/api/v1/runs', { key: tenant.key, headers, body })).status).toBe(201)
})

test('a secret is not kept: a repeated request is answered without it, and with what to do', async () => {
  const api = await useApi()
  const { projectId } = await makeTenant(api)
  const path = `/api/v1/projects/${projectId}/keys`
  const request = { key: api.operatorKey, headers, body: { name: 'second' } }
  const first = await api.ask('POST', path, request)
  const again = await api.ask('POST', path, request)
  expect(first.body).toMatchObject({ id: again.body['id'], secret: expect.stringMatching(/^purser_pk_/) })
  expect(again.status).toBe(201)
  expect(again.body['secret']).toBeUndefined()
  expect(again.body['remedy']).toContain('revoke this key and make another')
  const rows = await api.db.selectFrom('idempotency').selectAll().execute()
  expect(JSON.stringify(rows)).not.toContain(text(first.body, 'secret'))
})

test('a key that is not visible ASCII, or too long, is refused', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  for (const key of ['', 'a b', 'é', 'x'.repeat(256)]) {
    const answer = await api.ask('POST', '/api/v1/runs', {
      key: tenant.key,
      headers: { 'idempotency-key': key },
      body: runBody(),
    })
    expect([key, answer.status]).toEqual([key, 400])
    expect(answer.body['errors']).toEqual([{ path: 'header.idempotency-key', message: expect.any(String) }])
  }
})
