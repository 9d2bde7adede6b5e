import { newId } from '#db/ids.ts'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { makeKey } from '../support/api-keys.ts'
import {
  makeOperator,
  makeTenant,
  runBody,
  text,
  useApi,
  type Answer,
  type TestApi,
  type Tenant,
} from '../support/api.ts'
import { testCatalog } from '../support/world.ts'

const tagOf = ({ headers }: Answer) => z.string().parse(headers['etag'])

interface Thing {
  readonly path: string
  readonly key: string
  readonly method: 'PATCH' | 'PUT'
  readonly changes: readonly [object, object]
}

/** One of each that several people may change at the same time. */
async function thingsOf(api: TestApi, tenant: Tenant): Promise<readonly Thing[]> {
  const { operatorKey } = api
  const { organisations } = (await api.ask('GET', '/api/v1/organisations', { key: operatorKey })).body
  const [{ id } = { id: '' }] = z.array(z.looseObject({ id: z.string() })).parse(organisations)
  const limit = { scope: 'key', subjectId: tenant.keyId, measure: 'calls', period: 'day', cap: 5 }
  const limitId = text(await api.make('/api/v1/limits', { key: operatorKey, body: limit }), 'id')
  const webhook = { url: 'https://example.org/', topics: ['state'] }
  const webhookId = text(await api.make('/api/v1/webhooks', { key: tenant.key, body: webhook }), 'id')
  const schedule = { name: 'hourly', every: 3_600, run: runBody() }
  const scheduleId = text(await api.make('/api/v1/schedules', { key: tenant.key, body: schedule }), 'id')
  const provider = { name: 'lux', baseUrl: 'https://lux.example/v1', apiKey: 'lux-0123456789' }
  await api.make('/api/v1/providers', { key: operatorKey, body: provider })
  const patch = { method: 'PATCH' } as const
  return [
    { ...patch, path: `/organisations/${id}`, key: operatorKey, changes: [{ name: 'a' }, { name: 'b' }] },
    {
      ...patch,
      path: `/projects/${tenant.projectId}`,
      key: operatorKey,
      changes: [{ maxRunningRuns: 3 }, { maxRunningRuns: 4 }],
    },
    { ...patch, path: `/keys/${tenant.keyId}`, key: operatorKey, changes: [{ name: 'a' }, { name: 'b' }] },
    { ...patch, path: '/providers/lux', key: operatorKey, changes: [{ apiKey: 'lux-1' }, { kind: 'openrouter' }] },
    { ...patch, path: `/limits/${limitId}`, key: operatorKey, changes: [{ cap: 6 }, { cap: 7 }] },
    {
      ...patch,
      path: `/webhooks/${webhookId}`,
      key: tenant.key,
      changes: [{ topics: ['question'] }, { topics: ['state'] }],
    },
    { ...patch, path: `/schedules/${scheduleId}`, key: tenant.key, changes: [{ every: 120 }, { every: 180 }] },
    {
      method: 'PUT',
      path: '/catalog',
      key: operatorKey,
      changes: [{ ...testCatalog, models: testCatalog.models.slice(0, 1) }, testCatalog],
    },
  ]
}

test('what was changed meanwhile is not changed by who means what it was before', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  for (const { path, key, method, changes } of await thingsOf(api, tenant)) {
    const read = () => api.ask('GET', `/api/v1${path}`, { key })
    const change = (body: object, tag?: string) =>
      api.ask(method, `/api/v1${path}`, { key, body, headers: tag === undefined ? {} : { 'if-match': tag } })
    const [first, second] = changes
    const before = tagOf(await read())
    const changed = await change(first, before)
    expect([path, changed.status]).toEqual([path, 200])
    expect(tagOf(changed)).not.toBe(before)
    const late = await change(second, before)
    expect([path, late.status, late.body['code']]).toEqual([path, 412, 'changed_meanwhile'])
    const after = await read()
    expect(after.body['version']).toBe(changed.body['version'])
    // From what the change answered, from a list of tags, from any, and without saying.
    expect((await change(second, `"nothing", ${tagOf(changed)}`)).status).toBe(200)
    expect((await change(first, '*')).status).toBe(200)
    expect((await change(second)).status).toBe(200)

    const known = tagOf(await read())
    const again = await api.app.inject({
      method: 'GET',
      url: `/api/v1${path}`,
      headers: { authorization: `Bearer ${key}`, 'if-none-match': known },
    })
    expect([path, again.statusCode, again.body, again.headers['etag']]).toEqual([path, 304, '', known])
  }
})

test('of many who change the same version one does, and what is gone or foreign is just that', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const path = `/api/v1/projects/${tenant.projectId}`
  const before = tagOf(await api.ask('GET', path, { key: api.operatorKey }))
  const headers = { 'if-match': before }
  const change = (key: string, id: string) =>
    api.ask('PATCH', `/api/v1/projects/${id}`, { key, body: { maxRunningRuns: 9 }, headers })
  const answers = await Promise.all(Array.from({ length: 6 }, () => change(api.operatorKey, tenant.projectId)))
  expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 412, 412, 412, 412, 412])
  const { body } = await api.ask('GET', '/api/v1/audit?action=project.change', { key: api.operatorKey })
  expect(body['events']).toHaveLength(1)
  const stranger = await makeOperator(api.db, 'another')
  expect((await change(stranger, tenant.projectId)).status).toBe(404)
  expect((await change(api.operatorKey, newId(Date.now()))).status).toBe(404)
  expect((await change(api.operatorKey, 'nothing')).status).toBe(404)

  const { id } = await makeKey(api, tenant)
  const key = `/api/v1/keys/${id}`
  const asMade = tagOf(await api.ask('GET', key, { key: api.operatorKey }))
  const rotated = await api.make(`${key}/rotate`, { key: api.operatorKey, body: { overlapSeconds: 60 } })
  expect(rotated['version']).toBe(1)
  const revoke = (tag: string) => api.ask('DELETE', key, { key: api.operatorKey, headers: { 'if-match': tag } })
  expect((await revoke(asMade)).status).toBe(412)
  expect((await revoke(tagOf(await api.ask('GET', key, { key: api.operatorKey })))).status).toBe(204)
})

test('who says which version and who does not may change the same thing at the same time: nobody waits in a circle', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const things = (await thingsOf(api, tenant)).filter(({ method }) => method === 'PATCH')
  const { id } = await makeKey(api, tenant)
  const keys = ['', `"1"`].map((tag) => ({ method: 'DELETE', path: `/keys/${id}`, tag }) as const)
  for (const { path, key, method, changes } of things) {
    const change = (body: object, tag?: string) =>
      api.ask(method, `/api/v1${path}`, { key, body, headers: tag === undefined ? {} : { 'if-match': tag } })
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, n) => change(changes[n % 2 === 0 ? 0 : 1], n % 3 === 0 ? undefined : '*')),
    )
    expect([path, ...new Set(answers.map(({ status }) => status))]).toEqual([path, 200])
  }
  const revoked = await Promise.all(
    [...keys, ...keys, ...keys].map(({ method, path, tag }) =>
      api.ask(method, `/api/v1${path}`, { key: api.operatorKey, headers: tag === '' ? {} : { 'if-match': tag } }),
    ),
  )
  expect(revoked.filter(({ status }) => status !== 204 && status !== 412)).toEqual([])
})
