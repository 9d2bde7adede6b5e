import { closeEnvelope, setGate } from '#db/ledger.ts'
import { expect, test } from 'vitest'
import { makeOperator, makeTenant, runBody, text, usd, useApi, type TestApi, type Tenant } from '#test/support/api.ts'

const cny = (amount: string) => ({ amount, currency: 'CNY' })
const inAnHour = () => new Date(Date.now() + 3_600_000).toISOString()

test('credit is deposited as lots, which are listed, newest first, with what is free of them', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const expiresAt = inAnHour()
  const made = await grant(api, tenant, { lot: { source: 'campaign', priority: 5, expiresAt } })
  expect(made.status).toBe(201)
  const path = `/api/v1/wallets/${tenant.walletId}/lots`
  const first = await api.ask('GET', `${path}?limit=1`, { key: tenant.key })
  expect(first.body).toMatchObject({
    lots: [{ id: made.body['lotId'], source: 'campaign', priority: 5, expiresAt, free: usd('3.000000') }],
  })
  const rest = await api.ask('GET', `${path}?cursor=${text(first.body, 'nextCursor')}`, { key: tenant.key })
  expect(rest.body).toMatchObject({ lots: [{ source: 'deposit', priority: 100, expiresAt: null }], nextCursor: null })
  const wallet = await api.ask('GET', `/api/v1/projects/${tenant.projectId}/wallet`, { key: tenant.key })
  expect(wallet.body).toMatchObject({
    balances: [
      { balanceClass: 'direct', inLots: null },
      { balanceClass: 'credit', available: usd('13.000000'), inLots: usd('13.000000') },
    ],
  })
  const other = await makeTenant(api)
  expect((await api.ask('GET', path, { key: other.key })).status).toBe(404)
})

test('a lot that cannot be is refused by name', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const lot = { source: 'campaign' }
  const refusals = [
    [{ lot: { ...lot, expiresAt: '2001-01-01T00:00:00Z' } }, 422, 'lot_expired'],
    [{ lot: { source: 'opening' } }, 422, 'wrong_lot'],
    [{ lot, balanceClass: 'direct' }, 422, 'wrong_lot'],
    [{ lot: { ...lot, priority: 1.5 } }, 400, 'invalid_request'],
    [{ lot: { ...lot, priority: -1 } }, 400, 'invalid_request'],
    [{ lot: { ...lot, expiresAt: 'tomorrow' } }, 400, 'invalid_request'],
    [{ lot: { ...lot, expiresAt: '0000-01-01T00:00:00Z' } }, 400, 'invalid_request'],
    [{ lot: { source: '' } }, 400, 'invalid_request'],
    [{ lot: {} }, 400, 'invalid_request'],
  ] as const
  for (const [change, status, code] of refusals) {
    const answer = await grant(api, tenant, change)
    expect([change, answer.status, answer.body['code']]).toEqual([change, status, code])
  }
  expect(await api.db.selectFrom('lot').select('source').execute()).toEqual([{ source: 'deposit' }])
})

test('a deposit is reversed once; what is not there any more is refused, or owed', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { body: deposit } = await grant(api, tenant, { lot: { source: 'campaign', priority: 1 } })
  const pockets = [
    { balanceClass: 'direct', amount: usd('1') },
    { balanceClass: 'credit', amount: usd('2') },
  ]
  await api.make('/api/v1/runs', { key: tenant.key, body: runBody({ envelope: { pockets } }) })
  const path = `/api/v1/deposits/${text(deposit, 'id')}/reversal`
  const short = await api.ask('POST', path, { key: api.operatorKey })
  expect([short.status, short.body['code']]).toEqual([402, 'wallet_short'])
  expect(short.body).toMatchObject({ taken: usd('1.000000'), missing: usd('2.000000') })
  const body = { shortfall: 'owe' }
  const headers = { 'idempotency-key': 'reverse' }
  const done = await api.ask('POST', path, { key: api.operatorKey, body, headers })
  expect(done.status).toBe(201)
  expect(done.body).toMatchObject({ amount: usd('3.000000'), taken: usd('1.000000'), owed: usd('2.000000') })
  expect((await api.ask('POST', path, { key: api.operatorKey, body, headers })).body).toEqual(done.body)
  const again = await api.ask('POST', path, { key: api.operatorKey, body })
  expect([again.status, again.body['code'], again.body['reversalId']]).toEqual([
    409,
    'already_reversed',
    done.body['id'],
  ])
  const wallet = await api.ask('GET', `/api/v1/projects/${tenant.projectId}/wallet`, { key: tenant.key })
  expect(wallet.body).toMatchObject({ debts: [usd('2.000000')] })
  const stranger = await makeOperator(api.db, 'other')
  expect((await api.ask('POST', path, { key: stranger })).status).toBe(404)
  const noDeposit = await api.ask('POST', `/api/v1/deposits/${text(done.body, 'id')}/reversal`, {
    key: api.operatorKey,
  })
  expect([noDeposit.status, noDeposit.body['code']]).toEqual([404, 'not_found'])
})

test('direct money is refunded once for its reference', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const ask = (body: unknown) =>
    api.ask('POST', `/api/v1/wallets/${tenant.walletId}/refunds`, { key: api.operatorKey, body })
  const good = { amount: usd('4'), reference: 'back 1' }
  const first = await ask(good)
  const again = await ask(good)
  expect([first.status, again.status]).toEqual([201, 200])
  expect(again.body).toEqual(first.body)
  const refusals = [
    [{ ...good, amount: usd('5') }, 422, 'reference_mismatch'],
    [{ amount: usd('6.01'), reference: 'back 2' }, 402, 'wallet_short'],
    [{ amount: usd('1'), reference: 'back 2', balanceClass: 'credit' }, 422, 'not_refundable'],
    [{ amount: cny('1'), reference: 'back 2' }, 422, 'wrong_currency'],
    [{ amount: usd('0'), reference: 'back 2' }, 400, 'invalid_amount'],
  ] as const
  for (const [body, status, code] of refusals) {
    const answer = await ask(body)
    expect([body, answer.status, answer.body['code']]).toEqual([body, status, code])
  }
})

test('quotes are stored by operators, listed newest first, and never make a currency out of itself', async () => {
  const api = await useApi()
  const key = api.operatorKey
  const tenant = await makeTenant(api)
  const body = { sell: cny('7.1'), buy: usd('1'), source: 'the bank', expiresAt: inAnHour() }
  const made = await api.make('/api/v1/quotes', { key, body })
  expect(made).toMatchObject({ sell: cny('7.100000'), buy: usd('1.000000'), expiresAt: body.expiresAt })
  const refusals = [
    [{ ...body, buy: cny('1') }, 'invalid_request'],
    [{ ...body, expiresAt: '2001-01-01T00:00:00Z' }, 'invalid_request'],
    [{ ...body, effectiveAt: body.expiresAt }, 'invalid_request'],
    [{ ...body, sell: cny('0') }, 'invalid_amount'],
  ] as const
  for (const [wrong, code] of refusals) {
    const answer = await api.ask('POST', '/api/v1/quotes', { key, body: wrong })
    expect([answer.status, answer.body['code']]).toEqual([400, code])
  }
  expect((await api.ask('POST', '/api/v1/quotes', { key: tenant.key, body })).status).toBe(403)
  const stranger = await makeOperator(api.db, 'other')
  expect((await api.ask('GET', '/api/v1/quotes', { key: stranger })).body).toMatchObject({ quotes: [] })
  expect((await api.ask('GET', '/api/v1/quotes', { key })).body).toMatchObject({ quotes: [made], nextCursor: null })
})

test('a run and its top-up are funded from CNY credit, exchanged at the quotes in force, and return at their own', async () => {
  const api = await useApi()
  const key = api.operatorKey
  const tenant = await makeTenant(api)
  await grant(api, tenant, { amount: cny('100') })
  const pockets = [{ balanceClass: 'credit', amount: cny('71'), exchangeTo: 'USD' }]
  const start = () =>
    api.ask('POST', '/api/v1/runs', { key: tenant.key, body: runBody({ ...onCredit, envelope: { pockets } }) })
  const early = await start()
  expect([early.status, early.body['code']]).toEqual([422, 'no_quote'])
  await api.make('/api/v1/quotes', { key, body: { sell: cny('7.1'), buy: usd('1'), source: 'the bank' } })
  const started = await start()
  expect(started.status).toBe(201)
  const runId = text(started.body, 'id')
  await api.make('/api/v1/quotes', { key, body: { sell: cny('5'), buy: usd('1'), source: 'the bank' } })
  const more = { pockets: [{ ...pockets[0], amount: cny('10') }] }
  const topped = await api.ask('POST', `/api/v1/runs/${runId}/top-up`, { key: tenant.key, body: more })
  expect(topped.body).toMatchObject({
    envelope: { pockets: [{ balanceClass: 'credit', currency: 'USD', funded: usd('12.000000') }] },
  })
  const odd = { pockets: [{ ...pockets[0], exchangeTo: 'CNY' }] }
  const refused = await api.ask('POST', `/api/v1/runs/${runId}/top-up`, { key: tenant.key, body: odd })
  expect([refused.status, refused.body['code']]).toEqual([400, 'invalid_request'])
  const scope = { projectId: tenant.projectId }
  const { envelope_id: envelopeId } = await api.db.selectFrom('run').select('envelope_id').executeTakeFirstOrThrow()
  await setGate(api.db, scope, { envelopeId, gate: 'closing', reason: 'test' })
  expect(await closeEnvelope(api.db, scope, { envelopeId, reason: 'test' })).toBe('closed')
  const wallet = await api.ask('GET', `/api/v1/projects/${tenant.projectId}/wallet`, { key: tenant.key })
  expect(wallet.body['balances']).toContainEqual(
    expect.objectContaining({ balanceClass: 'credit', available: cny('100.000000'), inLots: cny('100.000000') }),
  )
  const ledger = await api.ask('GET', `/api/v1/runs/${runId}/ledger`, { key: tenant.key })
  expect(ledger.body).toMatchObject({
    transfers: [{ code: 'top_up', quoteId: expect.any(String), lotId: expect.any(String) }, {}, {}, {}, {}, {}, {}, {}],
  })
})

const onCredit = { model: 'research' }

async function grant(api: TestApi, tenant: Tenant, change: Readonly<Record<string, unknown>>) {
  return api.ask('POST', '/api/v1/deposits', {
    key: api.operatorKey,
    body: { walletId: tenant.walletId, balanceClass: 'credit', amount: usd('3'), reference: 'a grant', ...change },
  })
}
