import { distrustRoute, openCircuit, pauseRoute } from '#db/route-circuit.ts'
import { resetRoute } from '#db/route-health.ts'
import { newId } from '#db/ids.ts'
import { noteDistrust } from '#db/route-distrust.ts'
import { makeOperator, makeTenant, startTestRun, usd, useApi } from '#test/support/api.ts'
import { testCatalog } from '#test/support/world.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'

const key = { provider: 'sandbox', upstreamModel: 'sandbox-steady' }
const failure = { outcome: 'overloaded', message: 'HTTP 503: too much' } as const

test('each upstream model of the newest catalog is shown once, with the routes that lead there', async () => {
  const api = await useApi()
  const { status, body } = await api.ask('GET', '/api/v1/routes', { key: api.operatorKey })
  expect(status).toBe(200)
  expect(body).toEqual({
    catalogVersion: 1,
    routes: ['economy', 'busy', 'steady', 'small'].map((name) => ({
      provider: 'sandbox',
      upstreamModel: `sandbox-${name}`,
      routes: { economy: ['research › economy'], busy: ['research › busy'], small: ['unpriced › small'] }[name] ?? [
        'research › steady',
        'steady › steady',
      ],
      circuit: { state: 'closed', since: null, until: null, failures: 0 },
      lastFailure: null,
      room: { requestsPerMinute: null, tokensPerMinute: null, concurrency: null },
      distrust: null,
      lastReset: null,
    })),
  })
})

test('an open circuit, a pause, distrust and the room of limits are seen', async () => {
  const api = await useApi()
  const [model] = testCatalog.models
  const limits = { requestsPerMinute: 10, tokensPerMinute: 100_000 }
  const routes = [{ ...model?.routes[2], limits }, { ...model?.routes[1] }]
  await api.ask('PUT', '/api/v1/catalog', {
    key: api.operatorKey,
    body: { models: [{ name: 'm', routes }], prices: [] },
  })
  await openCircuit(api.db, key, { epoch: 0, forMs: 60_000, failures: 5, failure })
  await distrustRoute(api.db, key, 501_000)
  await pauseRoute(api.db, { ...key, upstreamModel: 'sandbox-busy' }, 60_000)
  const { body } = await api.ask('GET', '/api/v1/routes', { key: api.operatorKey })
  expect(body['routes']).toMatchObject([
    {
      circuit: { state: 'open', since: expect.any(String), until: expect.any(String), failures: 5 },
      lastFailure: { outcome: 'overloaded', message: 'HTTP 503: too much' },
      room: {
        requestsPerMinute: { limit: 10, used: 0, leased: 0 },
        tokensPerMinute: { limit: 100_000 },
        concurrency: null,
      },
      distrust: { factor: '1.501000', since: expect.any(String) },
    },
    { circuit: { state: 'paused', until: expect.any(String) } },
  ])
})

test('a person closes a circuit or trusts a route again, and it is written down who it was', async () => {
  const api = await useApi()
  await openCircuit(api.db, key, { epoch: 0, forMs: 60_000, failures: 5, failure })
  await distrustRoute(api.db, key, 501_000)
  const reset = (what: string) =>
    api.ask('POST', '/api/v1/routes/reset', { key: api.operatorKey, body: { ...key, what } })
  expect((await reset('circuit')).body).toMatchObject({
    isChanged: true,
    route: {
      circuit: { state: 'closed', failures: 0 },
      distrust: { factor: '1.501000' },
      lastReset: { what: 'circuit' },
    },
  })
  expect((await reset('distrust')).body).toMatchObject({ isChanged: true, route: { distrust: null } })
  expect((await reset('distrust')).body).toMatchObject({ isChanged: false, route: { lastReset: { what: 'distrust' } } })
  const rows = await api.db.selectFrom('route_reset').selectAll().orderBy('reset_at').execute()
  const operator = await api.db.selectFrom('api_key').select('id').executeTakeFirstOrThrow()
  expect(rows).toMatchObject([
    { what: 'circuit', api_key_id: operator.id, before: { failures: 5, last_outcome: 'overloaded' } },
    { what: 'distrust', api_key_id: operator.id, before: { distrust_ppm: 501_000 } },
  ])
  await expect(sql`update route_reset set what = 'circuit'`.execute(api.db)).rejects.toThrow()
  await expect(sql`delete from route_reset`.execute(api.db)).rejects.toThrow()
})

test('of many that reset at once one has done it', async () => {
  const api = await useApi()
  await openCircuit(api.db, key, { epoch: 0, forMs: 60_000, failures: 5, failure })
  const { id, organisation_id: organisationId } = await api.db
    .selectFrom('api_key')
    .select(['id', 'organisation_id'])
    .executeTakeFirstOrThrow()
  const caller = { keyId: id, organisationId, projectId: null }
  const resets = await Promise.all(
    Array.from({ length: 6 }, () =>
      api.db
        .transaction()
        .execute((trx) => resetRoute(trx, caller, { ...key, id: newId(Date.now()), what: 'circuit' })),
    ),
  )
  expect(resets.filter(Boolean)).toHaveLength(1)
  expect(await api.db.selectFrom('route_reset').selectAll().execute()).toHaveLength(1)
})

test('operators only; an unknown route is not found, and an odd request is refused', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  expect((await api.ask('GET', '/api/v1/routes', { key: tenant.key })).status).toBe(403)
  const ask = (body: unknown, by = api.operatorKey) => api.ask('POST', '/api/v1/routes/reset', { key: by, body })
  expect((await ask({ ...key, what: 'circuit' }, tenant.key)).status).toBe(403)
  expect((await ask({ ...key, what: 'circuit' }, await makeOperator(api.db, 'other'))).status).toBe(200)
  expect((await ask({ ...key, upstreamModel: 'none', what: 'circuit' })).status).toBe(404)
  for (const body of [{ ...key, what: 'all' }, { ...key }, { what: 'circuit' }, { ...key, what: 'circuit', x: 1 }]) {
    expect((await ask(body)).status).toBe(400)
  }
})

test('distrust is told in the events of the run where it was found', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const runId = await startTestRun(api, tenant)
  const excess = { ...key, runId, callId: newId(Date.now()), attempt: 1, route: 'steady', currency: 'USD' }
  await noteDistrust(api.db, tenant, { ...excess, held: 1_000_000n, charged: 1_501_000n, distrustPpm: 501_000 })
  const { body } = await api.ask('GET', `/api/v1/runs/${runId}/events?format=json`, { key: tenant.key })
  expect(body['events']).toContainEqual(
    expect.objectContaining({
      kind: 'route.distrusted',
      data: expect.objectContaining({ route: 'steady', held: usd('0.001000'), charged: usd('0.001501') }),
    }),
  )
})
