import { buildApi } from '#api/api.ts'
import { connectDatabase } from '#db/database.ts'
import { expect, onTestFinished, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { testDeps } from '../support/api-deps.ts'
import { askerOf, makeOperator, makeTenant, text, usd, useApi, type Answer, type TestApi } from '../support/api.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { payment, STRIPE_SECRET, told } from '../support/payments.ts'

const approvalAbove = new Map([['USD', 100_000_000_000n]])

interface Wallet {
  readonly id: string
  readonly projectId: string
}

async function makeWallet(api: TestApi, name = 'one', key = api.operatorKey): Promise<Wallet> {
  const project = await api.make('/api/v1/projects', { key, body: { name } })
  const projectId = text(project, 'id')
  return { projectId, id: text(await api.make(`/api/v1/projects/${projectId}/wallet`, { key }), 'id') }
}

interface Deposit {
  readonly wallet: Wallet
  readonly amount: string
  readonly reference: string
  readonly key?: string
  readonly balanceClass?: 'direct' | 'credit'
  readonly currency?: string
  readonly idempotencyKey?: string
}

function deposit(api: Pick<TestApi, 'ask' | 'operatorKey'>, what: Deposit): Promise<Answer> {
  const { wallet, amount, reference, key = api.operatorKey, balanceClass = 'direct', currency = 'USD' } = what
  const body = { walletId: wallet.id, balanceClass, amount: { amount, currency }, reference }
  const headers = what.idempotencyKey === undefined ? {} : { 'idempotency-key': what.idempotencyKey }
  return api.ask('POST', '/api/v1/deposits', { key, body, headers })
}

/** Another API on the same database, with connections of its own. */
async function besides({ database, operatorKey }: TestApi) {
  const db = connectDatabase({ url: database.appUrl, maxConnections: 8 })
  const app = await buildApi(testDeps({ db, approvalAbove }))
  onTestFinished(async () => {
    await app.close()
    await db.destroy()
  })
  return { ask: await askerOf(app), operatorKey }
}

async function booked(api: TestApi): Promise<string> {
  const rows = await api.db.selectFrom('transfer').select('amount').where('code', '=', 'deposit').execute()
  return String(rows.reduce((sum, { amount }) => sum + amount, 0n) / 1_000_000_000n)
}

test('what operators of an organisation deposit alone is added up over its keys, projects and balances', async () => {
  const api = await useApi({ approvalAbove })
  const second = text(await api.make('/api/v1/keys', { key: api.operatorKey, body: { name: 'second' } }), 'secret')
  const [wallet, other] = [await makeWallet(api), await makeWallet(api, 'two')]
  expect((await deposit(api, { wallet, amount: '60', reference: 'a' })).status).toBe(201)
  const split = { wallet: other, amount: '40.000000001', reference: 'b', key: second, balanceClass: 'credit' } as const
  const waits = await deposit(api, split)
  expect([waits.status, waits.body['state'], waits.body['reason']]).toEqual([202, 'waiting', 'day'])
  expect((await deposit(api, { wallet, amount: '101', reference: 'c' })).body['reason']).toBe('amount')
  expect((await deposit(api, { ...split, amount: '40', reference: 'd' })).status).toBe(201)
  expect((await deposit(api, { wallet, amount: '0.000000001', reference: 'e' })).status).toBe(202)
  // What was booked stays what it was, and what waits goes on waiting.
  const again = await deposit(api, { wallet, amount: '60', reference: 'a' })
  expect([again.status, again.body['reference']]).toEqual([200, 'a'])
  expect((await deposit(api, split)).body).toEqual(waits.body)
  expect((await deposit(api, { ...split, amount: '39' })).body['code']).toBe('reference_mismatch')
  // Another organisation has a bound of its own.
  const foreign = await makeOperator(api.db, 'another organisation')
  const theirs = { wallet: await makeWallet(api, 'one', foreign), amount: '100', reference: 'a', key: foreign }
  expect((await deposit(api, theirs)).status).toBe(201)
  expect(await booked(api)).toBe('200')
  await expectVerified(api)
})

test('what another operator has approved, and what is refused or in error, takes no room', async () => {
  const api = await useApi({ approvalAbove })
  const makeKey = async (name: string) =>
    text(await api.make('/api/v1/keys', { key: api.operatorKey, body: { name } }), 'secret')
  const [asker, colleague] = [await makeKey('asker'), await makeKey('colleague')]
  const wallet = await makeWallet(api)
  const decide = async (reference: string, decision: 'approve' | 'refuse') => {
    const { body } = await deposit(api, { wallet, amount: '500', reference, key: asker })
    const path = `/api/v1/deposit-requests/${text(body, 'id')}/${decision}`
    expect((await api.ask('POST', path, { key: colleague })).status).toBe(200)
  }
  await decide('approved', 'approve')
  await decide('refused', 'refuse')
  const lot = { source: 'opening', priority: 1 }
  const wrong = { walletId: wallet.id, balanceClass: 'direct', amount: usd('100'), reference: 'wrong', lot }
  expect((await api.ask('POST', '/api/v1/deposits', { key: asker, body: wrong })).status).toBeGreaterThanOrEqual(400)
  expect((await deposit(api, { wallet, amount: '100', reference: 'alone', key: asker })).status).toBe(201)
  // Sent again it is refused as before, though it would be small enough today.
  expect((await deposit(api, { wallet, amount: '500', reference: 'refused', key: asker })).body['state']).toBe(
    'refused',
  )
  expect(await booked(api)).toBe('600')
})

test('of many at once, in two processes and projects, no more are booked than fit; each reference counts once', async () => {
  const api = await useApi({ approvalAbove })
  const server = await besides(api)
  const wallets = [await makeWallet(api), await makeWallet(api, 'two')]
  const asked = Array.from({ length: 24 }, (_, index) => {
    const wallet = wallets[index % 2]
    if (!wallet) throw new Error('there are two wallets')
    return { wallet, amount: '10', reference: `part ${index >> 1}` }
  })
  const answers = await Promise.all(
    asked.flatMap((each, index) => {
      const [one, other] = index % 3 === 0 ? [api, server] : [server, api]
      return [deposit(one, each), deposit(other, each)]
    }),
  )
  const count = (status: number) => answers.filter((answer) => answer.status === status).length
  // Of each the first one makes it, and the second one is told of it.
  expect([count(201), count(200), count(202)]).toEqual([10, 10, 28])
  expect(await booked(api)).toBe('100')
  await expectVerified(api)
})

test('a day later there is room again, and not before', async () => {
  const api = await useApi({ approvalAbove })
  const wallet = await makeWallet(api)
  expect((await deposit(api, { wallet, amount: '100', reference: 'a' })).status).toBe(201)
  const age = (by: string) =>
    asAdmin(api, (client) => client.query('update lone_deposit set made_at = made_at - $1::text::interval', [by]))
  await age('23 hours 59 minutes')
  expect((await deposit(api, { wallet, amount: '1', reference: 'b' })).status).toBe(202)
  await age('1 minute')
  expect((await deposit(api, { wallet, amount: '100', reference: 'c' })).status).toBe(201)
  // What has waited is somebody else's to decide, however much room there is.
  await age('24 hours')
  expect((await deposit(api, { wallet, amount: '1', reference: 'b' })).status).toBe(202)
  expect(await booked(api)).toBe('200')
})

test('each currency is added up by itself', async () => {
  const api = await useApi({ approvalAbove: new Map([...approvalAbove, ['EUR', 50_000_000_000n]]) })
  const wallet = await makeWallet(api)
  const statusOf = async (amount: string, currency: string, reference: string) =>
    (await deposit(api, { wallet, amount, currency, reference })).status
  expect(await statusOf('100', 'USD', 'a')).toBe(201)
  expect(await statusOf('50', 'EUR', 'b')).toBe(201)
  expect([await statusOf('1', 'USD', 'c'), await statusOf('1', 'EUR', 'd')]).toEqual([202, 202])
  expect((await deposit(api, { wallet, amount: '1', currency: 'CNY', reference: 'e' })).body['reason']).toBe('amount')
  await expectVerified(api)
})

test('what is repeated under its Idempotency-Key is answered as before, whatever room there is, and counts once', async () => {
  const api = await useApi({ approvalAbove })
  const server = await besides(api)
  const wallet = await makeWallet(api)
  const first = { wallet, amount: '60', reference: 'a', idempotencyKey: 'one' }
  const last = { wallet, amount: '40', reference: 'b', idempotencyKey: 'two' }
  const late = { wallet, amount: '1', reference: 'c', idempotencyKey: 'three' }
  const answers = []
  for (const each of [first, last, late]) {
    const both = await Promise.all([deposit(api, each), deposit(server, each)])
    expect(both[0].body).toEqual(both[1].body)
    answers.push(both[0])
  }
  expect(answers.map(({ status }) => status)).toEqual([201, 201, 202])
  for (const [index, each] of [first, last, late].entries()) {
    const again = await deposit(server, each)
    expect([again.status, again.body]).toEqual([answers[index]?.status, answers[index]?.body])
  }
  expect(await booked(api)).toBe('100')
  const requests = await api.db.selectFrom('deposit_request').select('reference').execute()
  expect(requests).toEqual([{ reference: 'c' }])
})

test('payments of a payment provider take no room, and need none', async () => {
  const api = await useApi({ approvalAbove, stripeSecret: STRIPE_SECRET })
  const wallet = await makeWallet(api)
  const pay = async (id: string, cents: number) =>
    (await told(api, payment(wallet.id, { id, amount_received: cents }))).body
  expect(await pay('pi_1', 10_000)).toEqual({ received: true, deposit: 'booked' })
  expect((await deposit(api, { wallet, amount: '100', reference: 'a' })).status).toBe(201)
  expect(await pay('pi_2', 10_000)).toEqual({ received: true, deposit: 'booked' })
  expect(await pay('pi_3', 10_001)).toEqual({ received: true, deposit: 'waiting' })
  const [request] = await api.db.selectFrom('deposit_request').select(['reference', 'reason']).execute()
  expect(request).toEqual({ reference: 'stripe pi_3', reason: 'amount' })
  expect(await booked(api)).toBe('300')
})

test('a deposit that is taken back gives no room back', async () => {
  const api = await useApi({ approvalAbove })
  const wallet = await makeWallet(api)
  const made = await deposit(api, { wallet, amount: '100', reference: 'a' })
  await api.make(`/api/v1/deposits/${text(made.body, 'id')}/reversal`, { key: api.operatorKey })
  expect((await deposit(api, { wallet, amount: '1', reference: 'b' })).body['reason']).toBe('day')
  expect((await deposit(api, { wallet, amount: '100', reference: 'a' })).status).toBe(200)
  await expectVerified(api)
})

test('without a bound nothing is counted', async () => {
  const api = await useApi()
  await makeTenant(api, api.operatorKey, '1000')
  expect(await api.db.selectFrom('lone_deposit').selectAll().execute()).toEqual([])
})
