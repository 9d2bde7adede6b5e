import { connectDatabase } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import { sql } from 'kysely'
import { expect, onTestFinished, test } from 'vitest'
import { makeTenant, text, usd, useApi } from '#test/support/api.ts'

test('an operator makes a project, its key and a wallet, and deposits into both balances', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { status, body } = await api.ask('GET', `/api/v1/projects/${tenant.projectId}/wallet`, { key: tenant.key })
  expect(status).toBe(200)
  expect(body).toMatchObject({
    id: tenant.walletId,
    balances: [
      { balanceClass: 'direct', currency: 'USD', available: usd('10.000000'), inEnvelopes: usd('0.000000') },
      { balanceClass: 'credit', currency: 'USD', available: usd('10.000000'), inEnvelopes: usd('0.000000') },
    ],
    debts: [],
  })
})

test('projects are listed page by page, newest first, and each name once', async () => {
  const api = await useApi()
  const key = api.operatorKey
  for (const name of ['one', 'two', 'three']) await api.make('/api/v1/projects', { key, body: { name } })
  const first = await api.ask('GET', '/api/v1/projects?limit=2', { key })
  expect(first.body).toMatchObject({ projects: [{ name: 'three' }, { name: 'two' }], nextCursor: expect.any(String) })
  const next = await api.ask('GET', `/api/v1/projects?limit=2&cursor=${text(first.body, 'nextCursor')}`, { key })
  expect(next.body).toMatchObject({ projects: [{ name: 'one' }], nextCursor: null })
  const again = await api.ask('POST', '/api/v1/projects', { key, body: { name: 'two' } })
  expect([again.status, again.body['code']]).toEqual([409, 'already_exists'])
  const odd = await api.ask('GET', '/api/v1/projects?cursor=odd', { key })
  expect([odd.status, odd.body['code']]).toEqual([400, 'invalid_request'])
})

test('a secret is answered once, kept as a hash, and opens nothing once revoked', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const path = `/api/v1/projects/${tenant.projectId}`
  expect(tenant.key).toMatch(/^purser_pk_[\w-]{43}$/)
  expect(api.operatorKey).toMatch(/^purser_op_[\w-]{43}$/)
  const listed = await api.ask('GET', `${path}/keys`, { key: api.operatorKey })
  expect(JSON.stringify(listed.body)).not.toContain(tenant.key)
  expect(listed.body).toMatchObject({ keys: [{ id: tenant.keyId, hint: tenant.key.slice(0, 14), revokedAt: null }] })
  const rows = await api.db.selectFrom('api_key').selectAll().execute()
  expect(JSON.stringify(rows)).not.toContain(tenant.key)

  expect((await api.ask('GET', path, { key: tenant.key })).status).toBe(200)
  expect((await api.ask('DELETE', `/api/v1/keys/${tenant.keyId}`, { key: api.operatorKey })).status).toBe(204)
  expect((await api.ask('GET', path, { key: tenant.key })).status).toBe(401)
  expect((await api.ask('DELETE', `/api/v1/keys/${tenant.keyId}`, { key: api.operatorKey })).status).toBe(204)
  const after = await api.ask('GET', `${path}/keys`, { key: api.operatorKey })
  expect(after.body).toMatchObject({ keys: [{ revokedAt: expect.any(String) }] })
})

test('a project has one wallet', async () => {
  const api = await useApi()
  const key = api.operatorKey
  const { id } = await api.make('/api/v1/projects', { key, body: { name: 'poor' } })
  const none = await api.ask('GET', `/api/v1/projects/${String(id)}/wallet`, { key })
  expect([none.status, none.body['remedy']]).toEqual([404, 'An operator can make one.'])
  await api.make(`/api/v1/projects/${String(id)}/wallet`, { key })
  const again = await api.ask('POST', `/api/v1/projects/${String(id)}/wallet`, { key })
  expect([again.status, again.body['code']]).toEqual([409, 'already_exists'])
})

test('a deposit is booked once for its reference: again it is answered, with other facts it is refused', async () => {
  const api = await useApi()
  const key = api.operatorKey
  const { walletId } = await makeTenant(api)
  const body = { walletId, balanceClass: 'direct', amount: usd('2.5'), reference: 'invoice 7' }
  const first = await api.ask('POST', '/api/v1/deposits', { key, body })
  const again = await api.ask('POST', '/api/v1/deposits', { key, body: { ...body, amount: usd('2.50') } })
  expect([first.status, again.status]).toEqual([201, 200])
  expect(again.body).toEqual(first.body)
  expect(first.body).toMatchObject({ amount: usd('2.500000'), debtPaid: usd('0.000000'), reference: 'invoice 7' })
  for (const change of [
    { amount: usd('2.51') },
    { balanceClass: 'credit' },
    { amount: { amount: '2.5', currency: 'EUR' } },
  ]) {
    const other = await api.ask('POST', '/api/v1/deposits', { key, body: { ...body, ...change } })
    expect([other.status, other.body['code']]).toEqual([422, 'reference_mismatch'])
  }
  const rows = await api.db.selectFrom('transfer').select('amount').where('reference', '=', 'invoice 7').execute()
  expect(rows).toEqual([{ amount: 2_500_000_000n }])
})

test('a deposit pays the debt of an overage first', async () => {
  const api = await useApi()
  const key = api.operatorKey
  const { walletId, projectId } = await makeTenant(api)
  // Nothing in the API makes a debt by itself: the ledger's function for overages is called as its owner.
  const owner = connectDatabase({ url: api.database.ownerUrl, maxConnections: 1 })
  onTestFinished(() => owner.destroy())
  const pocket = await owner
    .selectFrom('account')
    .select('id')
    .where('project_id', '=', projectId)
    .where('balance_class', '=', 'direct')
    .executeTakeFirstOrThrow()
  await sql`select book_overage(${projectId}, ${pocket.id}, ${3_000_000_000n}, 0, ${newId(Date.now())},
    ${newId(Date.now())}, '{}')`.execute(owner)
  const short = await api.ask('GET', `/api/v1/projects/${projectId}/wallet`, { key })
  expect(short.body).toMatchObject({ debts: [usd('3.000000')] })
  const deposit = { walletId, balanceClass: 'credit', amount: usd('4'), reference: 'rescue' }
  const booked = await api.ask('POST', '/api/v1/deposits', { key, body: deposit })
  expect(booked.body).toMatchObject({ debtPaid: usd('3.000000') })
  const after = await api.ask('GET', `/api/v1/projects/${projectId}/wallet`, { key })
  expect(after.body).toMatchObject({ debts: [], balances: [{}, { available: usd('11.000000') }] })
})

test('a malformed, over-precise or zero amount is refused, with what to write instead', async () => {
  const api = await useApi()
  const { walletId } = await makeTenant(api)
  for (const [amount, message] of [
    [usd('1.0000000001'), 'has more than nine decimals'],
    [usd('1,5'), 'is not a decimal number without sign or exponent'],
    [usd('-1'), 'is not a decimal number without sign or exponent'],
    [usd('1e3'), 'is not a decimal number without sign or exponent'],
    [usd('0.000'), 'is zero'],
    [usd('1000000.1'), 'is more than 1000000'],
    [{ amount: 0.5, currency: 'USD' }, 'is not a string'],
    [{ currency: 'USD' }, 'is missing'],
    ['0.50', 'expected object'],
  ] as const) {
    const body = { walletId, balanceClass: 'direct', amount, reference: 'odd' }
    const answer = await api.ask('POST', '/api/v1/deposits', { key: api.operatorKey, body })
    expect([amount, answer.status, answer.body['code']]).toEqual([amount, 400, 'invalid_amount'])
    expect(answer.body['errors']).toEqual([
      { path: expect.stringMatching(/amount$/), message: expect.stringContaining(message) },
    ])
    expect(answer.body['remedy']).toContain('{"amount": "0.50", "currency": "USD"}')
  }
})

test('the catalog shows routes, balance classes and the prices in force, and the agents their inputs', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const models = await api.ask('GET', '/api/v1/models', { key: tenant.key })
  expect(models.body).toMatchObject({
    catalogVersion: 1,
    models: [
      { name: 'research', routes: [{ name: 'economy', balanceClass: 'credit' }, { name: 'busy' }, { name: 'steady' }] },
      { name: 'steady', routes: [{ price: { outputPerMillionTokens: usd('1.600000') } }] },
      { name: 'unpriced', routes: [{ price: null }] },
    ],
  })
  const agents = await api.ask('GET', '/api/v1/agents', { key: tenant.key })
  expect(agents.body['agents']).toContainEqual(expect.objectContaining({ name: 'research', input: expect.any(Object) }))
})
