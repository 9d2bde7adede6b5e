import { newId } from '#db/ids.ts'
import { hashOf } from '#db/api-key.ts'
import { decideRequest } from '#db/deposit-request.ts'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { makeOperator, makeTenant, text, usd, useApi, type TestApi } from '../support/api.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { payment, STRIPE_SECRET, told } from '../support/payments.ts'

async function depositsOf(api: TestApi): Promise<readonly string[]> {
  const rows = await api.db
    .selectFrom('transfer')
    .select(['reference', 'amount', 'currency'])
    .where('code', '=', 'deposit')
    .where('reference', 'not like', 'first%')
    .orderBy('seq')
    .execute()
  return rows.map(({ reference, amount, currency }) => `${reference} ${amount} ${currency}`)
}

async function anotherOperator(api: TestApi, key = api.operatorKey): Promise<string> {
  return text(await api.make('/api/v1/keys', { key, body: { name: 'second' } }), 'secret')
}

test('a payment becomes one deposit however often it is told, and what is not signed none', async () => {
  const api = await useApi({ stripeSecret: STRIPE_SECRET })
  const { walletId } = await makeTenant(api)
  const body = payment(walletId)
  const answers = await Promise.all(Array.from({ length: 8 }, () => told(api, body)))
  expect(answers.every(({ status }) => status === 200)).toBe(true)
  expect(answers[0]?.body).toEqual({ received: true, deposit: 'booked' })
  expect(await told(api, payment(walletId, { id: 'pi_2', amount_received: 500, currency: 'jpy' }))).toMatchObject({
    status: 200,
  })
  expect(await told(api, payment(walletId, { id: 'pi_3', amount_received: 1, currency: 'kwd' }))).toMatchObject({
    status: 200,
  })
  const other = JSON.stringify({ id: 'evt_2', type: 'customer.created', data: { object: {} } })
  expect(await told(api, other)).toEqual({ status: 200, body: { received: true, deposit: 'ignored' } })
  for (const signing of [
    { secret: 'another secret of 20' },
    { atMs: Date.now() - 600_000 },
    { atMs: Date.now() + 600_000 },
  ]) {
    expect(await told(api, payment(walletId, { id: 'pi_4' }), signing)).toMatchObject({
      status: 401,
      body: { code: 'unauthorized' },
    })
  }
  expect(await told(api, payment(newId(Date.now()), { id: 'pi_5' }))).toMatchObject({ status: 404 })
  expect(await told(api, payment('nothing', { id: 'pi_6' }))).toMatchObject({ status: 400 })
  expect(await told(api, payment(walletId, { amount_received: 9 }))).toMatchObject({
    status: 422,
    body: { code: 'reference_mismatch' },
  })
  expect(await told(api, '{"id":')).toMatchObject({ status: 400 })
  expect(await depositsOf(api)).toEqual([
    'stripe pi_1 25000000000 USD',
    'stripe pi_2 500000000000 JPY',
    'stripe pi_3 1000000 KWD',
  ])
  const { body: log } = await api.ask('GET', '/api/v1/audit?action=deposit.make', { key: api.operatorKey })
  const written = z.array(
    z.looseObject({ keyId: z.string().nullable(), after: z.looseObject({ reference: z.string() }) }),
  )
  const byNobody = written.parse(log['events']).filter(({ keyId }) => keyId === null)
  expect(byNobody.map(({ after }) => after.reference)).toEqual(['stripe pi_3', 'stripe pi_2', 'stripe pi_1'])
  await expectVerified(api)
})

test('without a secret nothing is taken from a payment provider', async () => {
  const api = await useApi()
  const { walletId } = await makeTenant(api)
  expect(await told(api, payment(walletId), { secret: '' })).toMatchObject({ status: 401 })
})

test('a large deposit waits for another operator, moves no money before, and is decided once', async () => {
  const api = await useApi({ stripeSecret: STRIPE_SECRET, approvalAbove: new Map([['USD', 50_000_000_000n]]) })
  const [first, second] = [await anotherOperator(api), await anotherOperator(api)]
  const tenant = await makeTenant(api)
  const ask = (amount: string, reference: string, currency = 'USD') =>
    api.ask('POST', '/api/v1/deposits', {
      key: first,
      body: { walletId: tenant.walletId, balanceClass: 'credit', amount: { amount, currency }, reference },
    })
  // With the 20 that the tenant began with that is as much as one may book alone.
  expect((await ask('30', 'small')).status).toBe(201)
  const large = await ask('50.000000001', 'large')
  expect([large.status, large.body['state']]).toEqual([202, 'waiting'])
  expect((await ask('50.000000001', 'large')).body).toEqual(large.body)
  expect((await ask('60', 'large')).body['code']).toBe('reference_mismatch')
  expect((await ask('1', 'other money', 'EUR')).status).toBe(202)
  expect(await told(api, payment(tenant.walletId, { amount_received: 5_001 }))).toMatchObject({
    body: { deposit: 'waiting' },
  })
  expect(await depositsOf(api)).toEqual(['small 30000000000 USD'])

  const path = `/api/v1/deposit-requests/${text(large.body, 'id')}`
  expect((await api.ask('POST', `${path}/approve`, { key: first })).body['code']).toBe('own_request')
  const foreign = await makeOperator(api.db, 'another organisation')
  expect((await api.ask('POST', `${path}/approve`, { key: foreign })).status).toBe(404)
  expect((await api.ask('POST', `${path}/approve`, { key: tenant.key })).status).toBe(403)
  const both = await Promise.all(
    ['approve', 'refuse', 'approve'].map((way) => api.ask('POST', `${path}/${way}`, { key: second })),
  )
  expect(both.filter(({ status }) => status === 409)).toHaveLength(2)
  const listed = await api.ask('GET', '/api/v1/deposit-requests?state=waiting', { key: second })
  expect(listed.body['depositRequests']).toHaveLength(2)
  const wasApproved = (await api.ask('GET', '/api/v1/deposit-requests?state=approved', { key: second })).body
  const expected = JSON.stringify(wasApproved).includes('large') ? ['large 50000000001 USD'] : []
  expect(await depositsOf(api)).toEqual(['small 30000000000 USD', ...expected])
  if (expected.length > 0) expect((await ask('50.000000001', 'large')).status).toBe(200)
  await expectVerified(api)
})

test('an approved request has its lot, and its reference is that of the deposit from then on', async () => {
  const api = await useApi({ approvalAbove: new Map([['USD', 1n]]) })
  const [first, second] = [await anotherOperator(api), await anotherOperator(api)]
  const tenant = await api.make('/api/v1/projects', { key: api.operatorKey, body: { name: 'one' } })
  const wallet = await api.make(`/api/v1/projects/${text(tenant, 'id')}/wallet`, { key: api.operatorKey })
  const body = {
    walletId: text(wallet, 'id'),
    balanceClass: 'credit',
    amount: usd('5'),
    reference: 'grant',
    lot: { source: 'grant', priority: 7, expiresAt: '2099-01-01T00:00:00Z' },
  }
  const asked = await api.ask('POST', '/api/v1/deposits', { key: first, body })
  const path = `/api/v1/deposit-requests/${text(asked.body, 'id')}/approve`
  const approved = await api.ask('POST', path, { key: second })
  expect(approved.body).toMatchObject({ state: 'approved', reference: 'grant' })
  const lots = await api.ask('GET', `/api/v1/wallets/${body.walletId}/lots`, { key: second })
  expect(lots.body['lots']).toMatchObject([{ source: 'grant', priority: 7, expiresAt: '2099-01-01T00:00:00.000Z' }])
  const again = await api.ask('POST', '/api/v1/deposits', { key: first, body })
  expect([again.status, again.body['id']]).toEqual([200, approved.body['depositId']])
  await expectVerified(api)
})

test('no key that comes from the one that asked, that it comes from, or that is newer than the request, decides on it', async () => {
  const api = await useApi({ approvalAbove: new Map([['USD', 1n]]) })
  const [asker, colleague] = [await anotherOperator(api), await anotherOperator(api)]
  const rotated = async (key: string) => {
    const keys = z
      .array(z.object({ id: z.string(), hint: z.string() }))
      .parse((await api.ask('GET', '/api/v1/keys', { key })).body['keys'])
    const { id } = keys.find(({ hint }) => key.startsWith(hint)) ?? { id: '' }
    return text(await api.make(`/api/v1/keys/${id}/rotate`, { key, body: { overlapSeconds: 600 } }), 'secret')
  }
  const child = await anotherOperator(api, asker)
  const grandchild = await rotated(child)
  const project = await api.make('/api/v1/projects', { key: asker, body: { name: 'one' } })
  const wallet = await api.make(`/api/v1/projects/${text(project, 'id')}/wallet`, { key: asker })
  const body = { walletId: text(wallet, 'id'), balanceClass: 'direct', amount: usd('5'), reference: 'large' }
  const asked = await api.ask('POST', '/api/v1/deposits', { key: asker, body })
  const id = text(asked.body, 'id')
  const newer = await anotherOperator(api, colleague)
  for (const key of [asker, child, grandchild, api.operatorKey, newer, await rotated(asker)]) {
    for (const decision of ['approve', 'refuse']) {
      const answer = await api.ask('POST', `/api/v1/deposit-requests/${id}/${decision}`, { key })
      expect(answer.body['code']).toBe('own_request')
    }
  }
  // And the database keeps them from it, too.
  const { id: childId } = await api.db
    .selectFrom('api_key')
    .select('id')
    .where('hash', '=', hashOf(child))
    .executeTakeFirstOrThrow()
  const decision = { id, decidedBy: childId, depositId: null }
  const scope = { projectId: text(project, 'id') }
  await expect(api.db.transaction().execute((trx) => decideRequest(trx, scope, decision))).rejects.toThrow(
    'is decided by another operator',
  )
  expect((await api.ask('POST', `/api/v1/deposit-requests/${id}/approve`, { key: colleague })).status).toBe(200)
})
