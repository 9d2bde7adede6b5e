import { DOCUMENT_PATH } from '#api/documentation.ts'
import { callListSchema } from '#contracts/api-call.ts'
import { ledgerSchema } from '#contracts/api-run.ts'
import { depositListSchema } from '#contracts/api-wallet.ts'
import { fireSchedule } from '#db/schedule-firing.ts'
import { fanOut } from '#db/webhook-fan-out.ts'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { call, makeKey } from '../support/api-keys.ts'
import { makeTenant, runBody, startTestRun, text, usd, useApi, type Tenant, type TestApi } from '../support/api.ts'
import { pollUntil } from '../support/poll.ts'
import { gatewayCatalog } from '../support/gateway-catalog.ts'
import { useGateway } from '../support/gateway.ts'

const paged = z.looseObject({ nextCursor: z.string().nullable() })

/** Every page of a listing, one after the other. */
async function walk(api: TestApi, path: string, key: string): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const pages: Readonly<Record<string, unknown>>[] = []
  let cursor: string | null = ''
  while (cursor !== null) {
    const more = cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`
    const { status, body } = await api.ask('GET', `/api/v1${path}${more}`, { key })
    expect([path, status]).toEqual([path, 200])
    pages.push(body)
    cursor = paged.parse(body).nextCursor
  }
  return pages
}

test('the calls of a project are listed in time, from either end, by who asked and what served', async () => {
  const gateway = await useGateway({
    catalog: gatewayCatalog({
      steady: [{ upstreamModel: 'sandbox-steady' }],
      falling: [{ name: 'busy', upstreamModel: 'sandbox-busy' }, { upstreamModel: 'sandbox-steady' }],
    }),
  })
  const { api, tenant } = gateway
  const another = await makeKey(api, tenant)
  for (const key of [tenant.key, another.secret, tenant.key]) expect(await call(gateway, key)).toEqual([200, null])
  const messages = [{ role: 'user' as const, content: 'When was the mill built?' }]
  await gateway.client().chat.completions.create({ model: 'falling', max_tokens: 20, messages })
  const idsOf = async (query: string) =>
    (await walk(api, `/calls?limit=2${query}`, tenant.key)).flatMap((page) => callListSchema.parse(page).calls)

  const all = await idsOf('')
  expect(all).toHaveLength(4)
  expect(all.map(({ keyId }) => keyId === another.id)).toEqual([false, false, true, false])
  expect((await idsOf('&order=asc')).map(({ id }) => id)).toEqual(all.map(({ id }) => id).toReversed())
  expect(all[0]).toMatchObject({
    runId: null,
    model: 'falling',
    state: 'answered',
    charged: [{ balanceClass: 'direct' }],
  })
  for (const [query, count] of [
    [`&keyId=${another.id}`, 1],
    ['&model=falling', 1],
    ['&route=busy', 1],
    ['&route=busy&outcome=answered', 0],
    ['&outcome=answered&balanceClass=direct', 4],
    ['&balanceClass=credit', 0],
    ['&state=open', 0],
    [`&to=${encodeURIComponent(all[1]?.at ?? '')}`, 2],
    [`&from=${encodeURIComponent(all[1]?.at ?? '')}`, 2],
    [`&runId=${tenant.projectId}`, 0],
  ] as const) {
    expect([query, (await idsOf(query)).length]).toEqual([query, count])
  }
  const stranger = await makeTenant(api)
  expect((await api.ask('GET', '/api/v1/calls', { key: stranger.key })).body['calls']).toEqual([])

  const { nextCursor } = paged.parse((await api.ask('GET', '/api/v1/calls?limit=1', { key: tenant.key })).body)
  for (const query of ['order=asc', 'model=steady', 'from=2026-01-01T00:00:00Z']) {
    const answer = await api.ask('GET', `/api/v1/calls?limit=1&${query}&cursor=${nextCursor}`, { key: tenant.key })
    expect([query, answer.status, answer.body['code']]).toEqual([query, 400, 'invalid_request'])
  }
  const larger = await api.ask('GET', `/api/v1/calls?limit=3&cursor=${nextCursor}`, { key: tenant.key })
  expect(callListSchema.parse(larger.body).calls.map(({ id }) => id)).toEqual(all.slice(1).map(({ id }) => id))
}, 60_000)

test('deposits are listed and shown, and every movement of an account with what was left of it', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const body = { walletId: tenant.walletId, balanceClass: 'direct', amount: usd('2.5'), reference: 'later' }
  const later = text(await api.make('/api/v1/deposits', { key: api.operatorKey, body }), 'id')
  await api.make(`/api/v1/wallets/${tenant.walletId}/refunds`, {
    key: api.operatorKey,
    body: { amount: usd('1'), reference: 'back' },
  })
  const deposits = async (query: string) =>
    (await walk(api, `/deposits?limit=2${query}`, tenant.key)).flatMap((page) => depositListSchema.parse(page).deposits)
  const references = ['later', 'first credit', 'first direct']
  expect((await deposits('')).map(({ reference }) => reference)).toEqual(references)
  expect((await deposits('&order=asc')).map(({ reference }) => reference)).toEqual(references.toReversed())
  expect((await deposits('&balanceClass=credit')).map(({ reference }) => reference)).toEqual(['first credit'])
  expect(await deposits('&to=2026-01-01T00:00:00Z')).toEqual([])
  const one = await api.ask('GET', `/api/v1/deposits/${later}`, { key: tenant.key })
  expect(one.body).toMatchObject({ id: later, reference: 'later', amount: usd('2.500000') })

  const balances = await api.ask('GET', `/api/v1/wallets/${tenant.walletId}/balances`, { key: tenant.key })
  const [direct] = z
    .array(z.looseObject({ accountId: z.string(), balanceClass: z.string() }))
    .parse(balances.body['balances'])
    .filter(({ balanceClass }) => balanceClass === 'direct')
  const movements = async (query: string) =>
    (await walk(api, `/accounts/${direct?.accountId}/ledger?limit=1${query}`, tenant.key)).flatMap(
      (page) => ledgerSchema.parse(page).transfers,
    )
  const told = (await movements('&order=asc')).map(({ code, amount, balanceAfter }) => [
    code,
    amount.amount,
    balanceAfter?.amount,
  ])
  expect(told).toEqual([
    ['deposit', '10.000000', '10.000000'],
    ['deposit', '2.500000', '12.500000'],
    ['refund', '1.000000', '11.500000'],
  ])
  expect((await movements('')).map(({ code }) => code)).toEqual(['refund', 'deposit', 'deposit'])
  expect((await movements('&code=refund')).map(({ code }) => code)).toEqual(['refund'])
  const [deposit] = await movements('&order=asc')
  const outside = `/api/v1/accounts/${deposit?.debit.id}/ledger`
  expect((await api.ask('GET', outside, { key: tenant.key })).status).toBe(404)
  const model = await api.ask('GET', '/api/v1/models/steady', { key: tenant.key })
  expect([model.status, model.body['name']]).toEqual([200, 'steady'])
  expect((await api.ask('GET', '/api/v1/models/none', { key: tenant.key })).status).toBe(404)
})

test('corpora are listed, those of the project alone', async () => {
  const api = await useApi()
  const [tenant, stranger] = [await makeTenant(api), await makeTenant(api)]
  for (const name of ['letters', 'papers', 'books'])
    await api.make('/api/v1/corpora', { key: tenant.key, body: { name } })
  await api.make('/api/v1/corpora', { key: stranger.key, body: { name: 'secrets' } })
  const listSchema = z.object({ corpora: z.array(z.object({ name: z.string() })) })
  const namesOf = async (query: string, key: string) =>
    (await walk(api, `/corpora?limit=2${query}`, key)).flatMap((page) =>
      listSchema.parse(page).corpora.map(({ name }) => name),
    )
  expect(await namesOf('', tenant.key)).toEqual(['books', 'papers', 'letters'])
  expect(await namesOf(`&projectId=${tenant.projectId}&order=asc`, api.operatorKey)).toEqual([
    'letters',
    'papers',
    'books',
  ])
})

test('a webhook is shown and changed', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const made = await api.make('/api/v1/webhooks', {
    key: tenant.key,
    body: { url: 'https://example.org/', topics: ['state'] },
  })
  const path = `/api/v1/webhooks/${text(made, 'id')}`
  const change = (body: object) => api.ask('PATCH', path, { key: tenant.key, body })
  const lowBalance = [{ balanceClass: 'direct', below: usd('5.000000') }]
  expect((await change({ topics: ['low_balance'], lowBalance })).status).toBe(200)
  expect((await change({ url: 'https://example.com/' })).status).toBe(200)
  expect((await api.ask('GET', path, { key: tenant.key })).body).toMatchObject({
    url: 'https://example.com/',
    topics: ['low_balance'],
    lowBalance,
  })
  expect((await change({})).status).toBe(400)
  expect((await change({ url: 'https://127.0.0.1/' })).status).toBe(400)
  expect((await api.ask('DELETE', path, { key: tenant.key })).status).toBe(204)
  expect((await change({ topics: ['state'] })).status).toBe(404)
  expect((await api.ask('GET', path, { key: tenant.key })).status).toBe(404)
})

/** Listings with two of each and the name of the moment that they have, made one after the other. */
async function twoOfEach(api: TestApi, tenant: Tenant): Promise<readonly (readonly [string, string])[]> {
  const { key } = tenant
  const operator = { key: api.operatorKey }
  const hook = { url: 'https://example.org/', topics: ['state'] }
  const webhook = text(await api.make('/api/v1/webhooks', { key, body: hook }), 'id')
  const hourly = { name: 'hourly', every: 3_600, run: runBody() }
  const schedule = text(await api.make('/api/v1/schedules', { key, body: hourly }), 'id')
  const run = await startTestRun(api, tenant)
  for (const [index, action] of ['pause', 'resume'].entries()) {
    const limit = { scope: 'run', subjectId: run, measure: 'calls', period: 'day', cap: 5 + index }
    await api.make('/api/v1/limits', { ...operator, body: limit })
    const effectiveAt = `2040-01-0${index + 1}T00:00:00Z`
    const quote = { sell: usd('1'), buy: { amount: '7', currency: 'CNY' }, source: 'test', effectiveAt }
    await api.make('/api/v1/quotes', { ...operator, body: quote })
    await api.make(`/api/v1/runs/${run}/${action}`, { key, body: {} })
    const fire = { scheduleId: schedule, scheduledFor: new Date(Date.UTC(2026, 0, 1, index)), nowMs: Date.now() }
    await fireSchedule(api.db, fire)
    await pollUntil(
      async () => {
        await fanOut(api.db, Date.now())
        return (await api.db.selectFrom('webhook_delivery').select('id').execute()).length > index
      },
      { what: `${action} is to be told` },
    )
  }
  return [
    ['/limits', 'createdAt'],
    ['/quotes', 'effectiveAt'],
    [`/wallets/${tenant.walletId}/lots`, 'createdAt'],
    [`/webhooks/${webhook}/deliveries`, 'createdAt'],
    [`/schedules/${schedule}/firings`, 'scheduledFor'],
  ]
}

test('what has a time is listed of a period, which begins with its first moment and ends before its last', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const later = { walletId: tenant.walletId, balanceClass: 'credit', amount: usd('1'), reference: 'later' }
  await api.make('/api/v1/deposits', { key: api.operatorKey, body: later })
  for (const [path, moment] of await twoOfEach(api, tenant)) {
    const timesOf = async (query: string) => {
      const { status, body } = await api.ask('GET', `/api/v1${path}?${query}`, { key: api.operatorKey })
      expect([path, status]).toEqual([path, 200])
      const [items] = Object.values(body).filter((value) => Array.isArray(value))
      return z
        .array(z.looseObject({ [moment]: z.string() }))
        .parse(items)
        .map((item) => item[moment] ?? '')
    }
    // Rows of one commit are listed by their ids, whose order need not be that of their times.
    const byTime = (one: string, other: string) => one.localeCompare(other)
    const all = (await timesOf('order=asc')).toSorted(byTime)
    const [first = '', last = ''] = [all[0], all.at(-1)]
    expect([path, first < last]).toEqual([path, true])
    const before = all.filter((each) => each !== last)
    expect([path, (await timesOf(`from=${first}&to=${last}&order=asc`)).toSorted(byTime)]).toEqual([path, before])
    expect([path, (await timesOf(`from=${last}`)).length]).toEqual([path, all.length - before.length])
    expect([path, await timesOf('to=2025-01-01T01:00:00%2B01:00')]).toEqual([path, []])
    expect([path, await timesOf(`from=${last}&to=${first}`)]).toEqual([path, []])
  }
})

const operationsSchema = z.object({
  paths: z.record(
    z.string(),
    z.object({
      get: z.looseObject({ parameters: z.array(z.looseObject({ name: z.string() })).default([]) }).optional(),
    }),
  ),
})

test('every listing that has pages has an order, and takes no cursor of another one', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { paths } = operationsSchema.parse((await api.app.inject({ method: 'GET', url: DOCUMENT_PATH })).json())
  const listings = Object.entries(paths).flatMap(([path, { get }]) => {
    const names = get?.parameters.map(({ name }) => name) ?? []
    return path.startsWith('/api/v1') && names.includes('cursor') ? [{ path, names }] : []
  })
  expect(listings.length).toBeGreaterThan(18)
  for (const { path, names } of listings) {
    expect([path, names]).toEqual([path, expect.arrayContaining(['limit', 'order', 'cursor'])])
  }
  const other = paged.parse((await api.ask('GET', '/api/v1/audit?limit=1', { key: api.operatorKey })).body).nextCursor
  expect(other).not.toBeNull()
  for (const { path, names } of listings.filter((each) => !each.path.includes('{'))) {
    const project = names.includes('projectId') ? `&projectId=${tenant.projectId}` : ''
    const ask = (query: string) => api.ask('GET', `${path}?limit=1${project}${query}`, { key: api.operatorKey })
    const both = [await ask('&order=asc'), await ask('&order=desc')]
    expect([path, ...both.map(({ status }) => status)]).toEqual([path, 200, 200])
    expect([path, (await ask(`&cursor=${other}`)).status]).toEqual([path, 400])
  }
})
