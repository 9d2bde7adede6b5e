import { admitRuns, waitingCommands } from '#db/command.ts'
import { finishRun } from '#db/run-end.ts'
import { expect, test } from 'vitest'
import { makeTenant, startTestRun, useApi, usd, type Tenant, type TestApi } from '#test/support/api.ts'

const MANY = 100

async function limit(api: TestApi, tenant: Tenant, maxRunningRuns: number) {
  const path = `/api/v1/projects/${tenant.projectId}`
  const answer = await api.ask('PATCH', path, { key: api.operatorKey, body: { maxRunningRuns } })
  expect(answer.body).toMatchObject({ id: tenant.projectId, maxRunningRuns })
}

const small = { envelope: { pockets: [{ balanceClass: 'direct', amount: usd('0.01') }] } }

async function startRuns(api: TestApi, tenant: Tenant, priorities: readonly number[]) {
  const ids: string[] = []
  for (const priority of priorities) ids.push(await startTestRun(api, tenant, { ...small, priority }))
  return ids
}

/** Runs whose start would be told now, the first one first. */
async function toStart(api: TestApi) {
  const commands = await waitingCommands(api.db, { limit: MANY, except: [] })
  return commands.filter(({ kind }) => kind === 'start').map(({ run }) => run.id)
}

async function admitted(api: TestApi) {
  const rows = await api.db.selectFrom('run').select('id').where('admitted_at', 'is not', null).execute()
  return new Set(rows.map(({ id }) => id))
}

async function positionOf(api: TestApi, tenant: Tenant, id: string) {
  const { body } = await api.ask('GET', `/api/v1/runs/${id}`, { key: tenant.key })
  return body['queue']
}

async function begin(api: TestApi, id: string | undefined) {
  await api.db
    .updateTable('run')
    .set({ state: 'running', started_at: new Date() })
    .where('id', '=', id ?? '')
    .execute()
}

async function finish(api: TestApi, tenant: Tenant, id: string | undefined) {
  await begin(api, id)
  const end = { state: 'completed', reason: 'finished', detail: 'Done.' } as const
  const scope = { projectId: tenant.projectId }
  expect(await finishRun(api.db, scope, { runId: id ?? '', end, output: null })).toEqual({ finished: true })
}

test('a run waits until its project has a place, by priority and then by age, and says where it stands', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  expect(await positionOf(api, tenant, await startTestRun(api, tenant, small))).toEqual({ position: 1 })
  await limit(api, tenant, 2)
  const [low, later, urgent, urgentToo] = await startRuns(api, tenant, [4, 4, 1, 1])
  expect(await positionOf(api, tenant, urgentToo ?? '')).toEqual({ position: 2 })
  expect(await toStart(api)).toEqual([])
  expect(await admitRuns(api.db, MANY)).toBe(2)
  expect(await admitted(api)).toEqual(new Set([urgent, urgentToo]))
  expect(new Set(await toStart(api))).toEqual(new Set([urgent, urgentToo]))
  expect(await positionOf(api, tenant, urgent ?? '')).toBeNull()
  expect(await positionOf(api, tenant, later ?? '')).toEqual({ position: 3 })
  expect(await admitRuns(api.db, MANY)).toBe(0)
  await finish(api, tenant, urgent)
  expect(await admitRuns(api.db, MANY)).toBe(1)
  expect(await admitted(api)).not.toContain(low)
  await limit(api, tenant, 3)
  expect(await admitRuns(api.db, MANY)).toBe(1)
  expect(await admitted(api)).toContain(low)
})

test('a paused run gives its place to another, and goes on whether or not there is one', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  await limit(api, tenant, 1)
  const [first, second, third] = await startRuns(api, tenant, [3, 3, 3])
  await admitRuns(api.db, MANY)
  await begin(api, first)
  await api.db
    .updateTable('run')
    .set({ state: 'paused' })
    .where('id', '=', first ?? '')
    .execute()
  expect(await admitRuns(api.db, MANY)).toBe(1)
  expect(await admitted(api)).toEqual(new Set([first, second]))
  await api.db
    .updateTable('run')
    .set({ state: 'running' })
    .where('id', '=', first ?? '')
    .execute()
  expect(await admitRuns(api.db, MANY)).toBe(0)
  await finish(api, tenant, first)
  expect(await admitRuns(api.db, MANY)).toBe(0)
  expect(await admitted(api)).not.toContain(third)
})

test('a project with many runs that wait does not delay the first of another', async () => {
  const api = await useApi()
  const [busy, quiet] = [await makeTenant(api), await makeTenant(api)]
  await startRuns(
    api,
    busy,
    Array.from({ length: 20 }, () => 3),
  )
  expect(await admitRuns(api.db, 4)).toBe(4)
  const [first, second] = await startRuns(api, quiet, [3, 3])
  expect(await admitRuns(api.db, 2)).toBe(2)
  expect(await admitted(api)).toContain(first)
  expect(await admitted(api)).toContain(second)
})

test('of many processes that look at the same time, none gives a place twice', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  await limit(api, tenant, 5)
  await startRuns(
    api,
    tenant,
    Array.from({ length: 12 }, () => 3),
  )
  const given = await Promise.all(Array.from({ length: 8 }, () => admitRuns(api.db, MANY)))
  expect(given.toSorted((a, b) => a - b)).toEqual([0, 0, 0, 0, 0, 0, 0, 5])
  expect((await admitted(api)).size).toBe(5)
})

test('a run that is cancelled while it waits is told so at once, and closes', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  await limit(api, tenant, 1)
  const [, waiting] = await startRuns(api, tenant, [3, 3])
  await admitRuns(api.db, MANY)
  const cancel = await api.ask('POST', `/api/v1/runs/${waiting}/cancel`, { key: tenant.key, body: {} })
  expect(cancel.status).toBe(202)
  expect(await admitRuns(api.db, MANY)).toBe(1)
  expect(await toStart(api)).toContain(waiting)
})

test('how many runs may be at work is for operators to say', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const path = `/api/v1/projects/${tenant.projectId}`
  const mine = await api.ask('PATCH', path, { key: tenant.key, body: { maxRunningRuns: 9 } })
  expect(mine.status).toBe(403)
  const none = await api.ask('PATCH', path, { key: api.operatorKey, body: { maxRunningRuns: 0 } })
  expect(none.status).toBe(400)
  expect((await api.ask('GET', path, { key: tenant.key })).body).toMatchObject({ maxRunningRuns: 50 })
})
