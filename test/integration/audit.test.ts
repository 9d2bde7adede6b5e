import { DOCUMENT_PATH } from '#api/documentation.ts'
import { auditChanges } from '#api/audit.ts'
import { auditListSchema, type AuditEventView } from '#contracts/api-audit.ts'
import { AUDIT_ACTIONS } from '#contracts/names.ts'
import { connectDatabase } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import Fastify from 'fastify'
import { expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { useEngine } from '../support/api-engine.ts'
import { makeOperator, makeTenant, text, usd, useApi, type TestApi, type Tenant } from '../support/api.ts'
import { withOpenAttempt } from '../support/open-attempt.ts'
import { testCatalog } from '../support/world.ts'

async function audit(api: TestApi, query = '?limit=200'): Promise<readonly AuditEventView[]> {
  const answer = await api.ask('GET', `/api/v1/audit${query}`, { key: api.operatorKey })
  expect(answer.status).toBe(200)
  return auditListSchema.parse(answer.body).events
}

/** Does once whatever operators can do, besides what a tenant is made with. */
async function changeEverything(api: TestApi, tenant: Tenant): Promise<void> {
  const key = api.operatorKey
  const make = (path: string, body: object = {}) => api.make(`/api/v1${path}`, { key, body })
  const change = async (method: 'PATCH' | 'DELETE' | 'PUT', path: string, body?: unknown) => {
    const answer = await api.ask(method, `/api/v1${path}`, { key, body })
    expect([path, answer.status]).toEqual([path, method === 'DELETE' ? 204 : 200])
  }
  await change('PATCH', `/projects/${tenant.projectId}`, { maxRunningRuns: 7 })
  const deposit = { walletId: tenant.walletId, balanceClass: 'direct', amount: usd('1'), reference: 'wrong' }
  await make(`/deposits/${text(await make('/deposits', deposit), 'id')}/reversal`)
  await make(`/wallets/${tenant.walletId}/refunds`, { amount: usd('1'), reference: 'back' })
  const money = { amount: '1', currency: 'USD' }
  await make('/quotes', { sell: money, buy: { amount: '7', currency: 'CNY' }, source: 'bank' })
  const price = { provider: 'lux', upstreamModel: 'lux-1', currency: 'USD', input: '3', output: '15' }
  await make('/prices', { prices: [price] })
  await change('PUT', '/catalog', { ...testCatalog, models: testCatalog.models.slice(0, 1) })
  const [route] = testCatalog.models[0]?.routes ?? []
  await make('/routes/reset', { provider: route?.provider, upstreamModel: route?.upstreamModel, what: 'circuit' })
  const period = { from: '2026-01-01T00:00:00Z', to: '2026-02-01T00:00:00Z' }
  await make('/invoices', { provider: 'sandbox', ...period, csv: 'request_id,model,amount,currency\na,b,1,USD\n' })
  const limit = { scope: 'key', subjectId: tenant.keyId, measure: 'calls', period: 'day', cap: 5 }
  const limitId = text(await make('/limits', limit), 'id')
  await change('PATCH', `/limits/${limitId}`, { cap: 6 })
  await change('DELETE', `/limits/${limitId}`)
  const [first, second] = [
    text(await make('/keys', { name: 'first operator' }), 'secret'),
    text(await make('/keys', { name: 'second operator' }), 'secret'),
  ]
  for (const decision of ['approve', 'refuse']) {
    const large = { ...deposit, amount: usd('100'), reference: `large ${decision}` }
    const asked = text(await api.make('/api/v1/deposits', { key: first, body: large }), 'id')
    await api.make(`/api/v1/deposit-requests/${asked}/${decision}`, { key: second })
  }
  const webhook = { projectId: tenant.projectId, url: 'https://example.org/', topics: ['state'] }
  const webhookId = text(await make('/webhooks', webhook), 'id')
  await change('PATCH', `/webhooks/${webhookId}`, { topics: ['state', 'threshold'] })
  await make(`/webhook-deliveries/${await deadLetter(api, tenant, webhookId)}/retry`)
  await change('DELETE', `/webhooks/${webhookId}`)
  await make('/providers', { name: 'lux', baseUrl: 'http://127.0.0.1:1/v1', apiKey: 'lux-0123456789abcdef' })
  await change('PATCH', '/providers/lux', { apiKey: 'lux-fedcba9876543210' })
  await change('DELETE', '/providers/lux')
  await make('/organisations', { name: 'another' })
  const { organisations } = (await api.ask('GET', '/api/v1/organisations', { key })).body
  const [{ id: organisationId }] = z.tuple([z.looseObject({ id: z.string() })]).parse(organisations)
  await change('PATCH', `/organisations/${organisationId}`, { name: 'ours' })
  await change('PATCH', `/keys/${tenant.keyId}`, { name: 'the first' })
  await make(`/keys/${tenant.keyId}/rotate`, { overlapSeconds: 60 })
  await change('DELETE', `/keys/${tenant.keyId}`)
}

async function deadLetter(api: TestApi, tenant: Tenant, webhookId: string): Promise<string> {
  const letter = { id: newId(Date.now()), webhook_id: webhookId, project_id: tenant.projectId, source: 'test' }
  const state = { state: 'dead' as const, last_status: null, last_error: null, delivered_at: null }
  await api.db
    .insertInto('webhook_delivery')
    .values({ ...letter, ...state, topic: 'state', body: '{}' })
    .execute()
  return letter.id
}

/** An attempt that was lost with its process, taken back by hand. */
async function voidAttempt(api: TestApi, tenant: Tenant): Promise<void> {
  const { world } = await useEngine(api, tenant)
  const { engine, attempt, controller, call } = await withOpenAttempt(world)
  await engine.instance.stop()
  const key = api.operatorKey
  await api.make('/api/v1/reconciliations', { key })
  await api.make(`/api/v1/calls/${attempt.callId}/attempts/1/void`, { key, body: { reason: 'it was not billed' } })
  controller.abort()
  await call.catch(() => {})
}

const operations = z.record(z.string(), z.record(z.string(), z.looseObject({ 'x-audit': z.string().optional() })))

test('every route that changes something is for projects, or is in the audit log under its own word', async () => {
  const api = await useApi({ approvalAbove: new Map([['USD', 50_000_000_000n]]) })
  const tenant = await makeTenant(api)
  const { paths } = z
    .object({ paths: operations })
    .parse((await api.app.inject({ method: 'GET', url: DOCUMENT_PATH })).json())
  const routes = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, action: operation['x-audit'] })),
  )
  const changing = routes.filter(({ method }) => method !== 'get')
  expect(changing.length).toBeGreaterThan(30)
  for (const { path, method } of changing.filter(({ action }) => action === undefined)) {
    // Its key is a signature, and who pays is no operator.
    if (path === '/api/v1/payments/stripe') continue
    const asked = { method: z.enum(['POST', 'PATCH', 'PUT', 'DELETE']).parse(method.toUpperCase()), url: path }
    const answer = await api.app.inject({ ...asked, headers: { authorization: `Bearer ${api.operatorKey}` } })
    expect([path, answer.statusCode]).toEqual([path, 403])
  }

  await voidAttempt(api, tenant)
  await changeEverything(api, tenant)
  const written = new Set((await audit(api)).map(({ action }) => action))
  const named = changing.flatMap(({ action }) => (action === undefined || action === 'changes_nothing' ? [] : [action]))
  expect(named.filter((action) => !AUDIT_ACTIONS.some((each) => each === action && written.has(each)))).toEqual([])
  // A key's time ends by itself.
  expect(AUDIT_ACTIONS.filter((action) => !written.has(action))).toEqual(['key.expire'])
})

test('a route that says nothing to the audit log does not start, and a change that wrote nothing is not answered', async () => {
  const app = Fastify()
  auditChanges(app)
  expect(() => app.delete('/everything', { config: { access: 'operator' } }, () => ({}))).toThrow('config.audit')
  expect(() => app.post('/anything', { config: { access: 'any' } }, () => ({}))).toThrow('config.audit')
  app.decorateRequest('caller', null)
  app.addHook('onRequest', async (request) => {
    const rights = { scopes: ['admin'] as const, constraints: null, addresses: null, run: null }
    request.caller = { keyId: 'k', organisationId: 'o', projectId: null, ...rights }
  })
  app.post('/quietly', { config: { access: 'operator', audit: 'quote.store' } }, () => ({}))
  expect((await app.inject({ method: 'POST', url: '/quietly' })).statusCode).toBe(500)
})

test('an event says who changed what, from what to what, without secrets, and only if it was changed', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const key = api.operatorKey
  const headers = { 'idempotency-key': 'once' }
  const path = `/api/v1/projects/${tenant.projectId}/keys`
  const made = await api.ask('POST', path, { key, body: { name: 'two' }, headers })
  await api.ask('POST', path, { key, body: { name: 'two' }, headers })
  await api.ask('PATCH', `/api/v1/projects/${tenant.projectId}`, { key, body: { maxRunningRuns: 9 } })
  const keyId = text(made.body, 'id')
  await api.ask('DELETE', `/api/v1/keys/${keyId}`, { key })
  const refused = await api.ask('POST', `/api/v1/projects/${tenant.projectId}/wallet`, { key })
  expect(refused.status).toBe(409)

  const [operator] = z
    .array(z.looseObject({ id: z.string() }))
    .parse((await api.ask('GET', '/api/v1/keys', { key })).body['keys'])
  const events = (await audit(api, `?projectId=${tenant.projectId}&limit=4`)).slice(0, 3)
  expect(events).toMatchObject([
    { action: 'key.revoke', target: keyId, before: { revokedAt: null }, after: { revokedAt: expect.any(String) } },
    {
      action: 'project.change',
      target: tenant.projectId,
      before: { maxRunningRuns: 50 },
      after: { maxRunningRuns: 9 },
    },
    { action: 'key.create', target: keyId, before: null, after: { name: 'two', projectId: tenant.projectId } },
  ])
  for (const event of events) expect(event).toMatchObject({ keyId: operator?.id, projectId: tenant.projectId })
  const rows = await api.db.selectFrom('audit_event').selectAll().execute()
  expect(JSON.stringify(rows)).not.toContain(text(made.body, 'secret').slice(14))
  expect(rows.filter(({ action }) => action === 'wallet.create')).toHaveLength(1)
})

test('the log is read by operators of the organisation page by page, and changed by nobody', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  expect((await api.ask('GET', '/api/v1/audit', { key: tenant.key })).status).toBe(403)
  const all = await audit(api)
  expect(all.map(({ action }) => action)).toEqual([
    'deposit.make',
    'deposit.make',
    'wallet.create',
    'key.create',
    'project.create',
    'key.create',
  ])
  expect(all.at(-1)).toMatchObject({ keyId: null, projectId: null })
  const first = auditListSchema.parse((await api.ask('GET', '/api/v1/audit?limit=4', { key: api.operatorKey })).body)
  expect(first.events).toEqual(all.slice(0, 4))
  expect(await audit(api, `?limit=4&cursor=${first.nextCursor}`)).toEqual(all.slice(4))
  expect(await audit(api, '?action=wallet.create')).toEqual([all[2]])
  expect(await audit(api, `?target=${tenant.keyId}`)).toEqual([all[3]])
  expect(await audit(api, `?keyId=${tenant.keyId}`)).toEqual([])
  expect(await audit(api, `?to=${all.at(-1)?.at}`)).toEqual([])
  expect(await audit(api, `?from=${all[0]?.at}`)).toContainEqual(all[0])
  const stranger = await makeOperator(api.db, 'another')
  const theirs = auditListSchema.parse((await api.ask('GET', '/api/v1/audit', { key: stranger })).body)
  expect(theirs.events.map(({ action }) => action)).toEqual(['key.create'])

  const owner = connectDatabase({ url: api.database.ownerUrl, maxConnections: 1 })
  onTestFinished(() => owner.destroy())
  for (const [db, refusal] of [
    [api.db, 'permission denied'],
    [owner, 'append-only'],
  ] as const) {
    await expect(db.updateTable('audit_event').set({ target: 'x' }).execute()).rejects.toThrow(refusal)
    await expect(db.deleteFrom('audit_event').execute()).rejects.toThrow(refusal)
  }
})
