import { ledgerSchema } from '#contracts/api-run.ts'
import { expect, test } from 'vitest'
import { makeTenant, startTestRun, text, useApi, type TestApi } from '#test/support/api.ts'

/** Asks and expects a problem with this code. */
async function expectRefused(api: TestApi, path: string, expected: { key: string; status: number; code: string }) {
  const { status, body } = await api.ask('GET', path, { key: expected.key })
  expect([status, body['code']]).toEqual([expected.status, expected.code])
}

test('balances are answered as of an instant, and a bad instant is a named problem', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { key, walletId } = tenant
  const runId = await startTestRun(api, tenant)
  const now = await api.ask('GET', `/api/v1/wallets/${walletId}/balances`, { key })
  expect(now.body).toMatchObject({
    final: false,
    balances: [
      { balanceClass: 'direct', available: { amount: '9.000000' }, inEnvelopes: { amount: '1.000000' } },
      { balanceClass: 'credit', available: { amount: '10.000000' }, inEnvelopes: { amount: '0.000000' } },
    ],
  })
  const before = await api.ask('GET', `/api/v1/wallets/${walletId}/balances?asOf=2020-02-29T12:00:00%2B01:00`, { key })
  expect(before.body).toMatchObject({ asOf: '2020-02-29T11:00:00.000000Z', final: true })
  expect(JSON.stringify(before.body['balances'])).not.toMatch(/[1-9]\.\d/)
  const ledger = await api.ask('GET', `/api/v1/runs/${runId}/ledger`, { key })
  const [entry] = ledgerSchema.parse(ledger.body).transfers
  if (!entry) throw new Error('the funding is there')
  const { debit, credit } = entry
  const pocket = await api.ask('GET', `/api/v1/accounts/${credit.id}/balance`, { key })
  expect(pocket.body).toMatchObject({ kind: 'pocket', posted: { amount: '1.000000' }, version: '1' })
  const { id } = await api.db.selectFrom('account').select('id').where('kind', '=', 'outside').executeTakeFirstOrThrow()
  const outside = await api.ask('GET', `/api/v1/accounts/${id}/balance`, { key })
  expect(outside.body).toMatchObject({ kind: 'outside', posted: { amount: '-20.000000' }, version: null })
  for (const path of [
    `/api/v1/accounts/${debit.id}/balance`,
    `/api/v1/wallets/${walletId}/balances`,
    `/api/v1/runs/${runId}/report`,
  ]) {
    for (const asOf of [
      '',
      'yesterday',
      '2026-02-30T00:00:00Z',
      '2026-01-01',
      '1999-12-31T23:59:59Z',
      '2026-01-01T00:00:00.1234567Z',
      '-infinity',
      '9'.repeat(500),
    ]) {
      await expectRefused(api, `${path}?asOf=${asOf}`, { key, status: 400, code: 'invalid_request' })
    }
    await expectRefused(api, `${path}?asOf=2999-01-01T00:00:00Z`, { key, status: 400, code: 'invalid_instant' })
    await expectRefused(api, `${path}?at=2020-01-01T00:00:00Z`, { key, status: 400, code: 'invalid_request' })
  }
})

test('a report is answered as of an instant and by revision, and only to its tenant', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { key } = tenant
  const runId = await startTestRun(api, tenant)
  const path = `/api/v1/runs/${runId}/report`
  const { body } = await api.ask('GET', path, { key })
  const again = await api.ask('GET', `${path}?asOf=${text(body, 'asOf')}`, { key })
  expect(again.body).toEqual({ ...body, asOf: expect.any(String) })
  expect((await api.ask('GET', `${path}?revision=1`, { key })).body).toMatchObject({ revision: 1, state: 'queued' })
  await expectRefused(api, `${path}?revision=2`, { key, status: 404, code: 'not_found' })
  await expectRefused(api, `${path}?revision=0`, { key, status: 400, code: 'invalid_request' })
  await expectRefused(api, `${path}?revision=1&asOf=2020-01-01T00:00:00Z`, {
    key,
    status: 400,
    code: 'invalid_request',
  })
  await expectRefused(api, `${path}?asOf=2020-01-01T00:00:00Z`, { key, status: 400, code: 'invalid_instant' })
  const stranger = await makeTenant(api)
  const accounts = await api.db.selectFrom('account').select('id').where('project_id', '=', tenant.projectId).execute()
  for (const { id } of accounts) {
    await expectRefused(api, `/api/v1/accounts/${id}/balance`, { key: stranger.key, status: 404, code: 'not_found' })
  }
  const foreign = `/api/v1/wallets/${tenant.walletId}/balances`
  await expectRefused(api, foreign, { key: stranger.key, status: 404, code: 'not_found' })
})
