import { newId } from '#db/ids.ts'
import { finishRun } from '#db/run-end.ts'
import { fireSchedule, listFirings } from '#db/schedule-firing.ts'
import { markTold, untoldSchedules } from '#db/schedule-telling.ts'
import { changeSchedule } from '#db/schedule.ts'
import { pollUntil } from '#test/support/poll.ts'
import { sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import { makeTenant, runBody, text, usd, useApi, type Tenant, type TestApi } from '#test/support/api.ts'

const scheduleBody = (change: Readonly<Record<string, unknown>> = {}) => ({
  name: 'nightly',
  cron: '0 3 * * 1-5',
  timeZone: 'Europe/Berlin',
  run: runBody(),
  ...change,
})

async function makeSchedule(api: TestApi, tenant: Tenant, change = {}) {
  return text(await api.make('/api/v1/schedules', { key: tenant.key, body: scheduleBody(change) }), 'id')
}

function fire(api: TestApi, scheduleId: string, hour: number) {
  return fireSchedule(api.db, { scheduleId, scheduledFor: new Date(Date.UTC(2026, 0, 1, hour)), nowMs: Date.now() })
}

async function finish(api: TestApi, tenant: Tenant, runId: string) {
  const end = { state: 'failed', reason: 'internal', detail: 'Done.' } as const
  await finishRun(api.db, { projectId: tenant.projectId }, { runId, end, output: null })
}

async function runOf(api: TestApi, scheduleId: string, hour: number) {
  const firing = await fire(api, scheduleId, hour)
  if (firing.kind !== 'started') throw new Error(`skipped: ${firing.detail}`)
  return firing.runId
}

describe('a schedule', () => {
  test('is made, shown, paused, changed and removed, and Temporal is told of each change', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const caps = [{ balanceClass: 'direct', amount: usd('5') }]
    const id = await makeSchedule(api, tenant, { monthlyCap: caps })
    const path = `/api/v1/schedules/${id}`
    const [untold] = await untoldSchedules(api.db, { limit: 9, except: [] })
    expect(untold).toMatchObject({ id, cron: '0 3 * * 1-5', timeZone: 'Europe/Berlin', isPaused: false, version: 1 })
    const paused = await api.ask('PATCH', path, { key: tenant.key, body: { state: 'paused', every: 3600 } })
    expect(paused.body).toMatchObject({
      state: 'paused',
      every: 3600,
      cron: null,
      monthlyCap: [{ balanceClass: 'direct', amount: usd('5.000000') }],
      isTold: false,
    })
    // What was told is older than what another process may have told: the newest version is told again.
    if (untold) await markTold(api.db, untold)
    const [newest] = await untoldSchedules(api.db, { limit: 9, except: [] })
    expect(newest).toMatchObject({ id, isPaused: true, everySeconds: 3600, version: 2 })
    if (newest) await markTold(api.db, newest)
    expect(await untoldSchedules(api.db, { limit: 9, except: [] })).toEqual([])
    expect((await api.ask('GET', path, { key: tenant.key })).body).toMatchObject({ isTold: true })
    const list = await api.ask('GET', '/api/v1/schedules', { key: tenant.key })
    expect(list.body).toMatchObject({ schedules: [{ id, name: 'nightly' }] })
    expect((await api.ask('DELETE', path, { key: tenant.key })).status).toBe(204)
    expect((await api.ask('GET', path, { key: tenant.key })).status).toBe(404)
    expect(await untoldSchedules(api.db, { limit: 9, except: [] })).toMatchObject([{ id, isDeleted: true }])
    await makeSchedule(api, tenant)
  })

  test('is refused for what its runs would be refused for, and for a time that is none', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const refusal = async (change: Readonly<Record<string, unknown>>) => {
      const answer = await api.ask('POST', '/api/v1/schedules', { key: tenant.key, body: scheduleBody(change) })
      return [answer.status, answer.body['code']]
    }
    expect(await refusal({ run: runBody({ agent: 'nobody' }) })).toEqual([422, 'unknown_agent'])
    expect(await refusal({ run: runBody({ model: 'unpriced' }) })).toEqual([422, 'no_price'])
    expect(await refusal({ run: runBody({ input: {} }) })).toEqual([400, 'invalid_request'])
    expect(await refusal({ cron: '0 25 * * *' })).toEqual([400, 'invalid_request'])
    // Intl takes the others too, and Temporal none of them.
    for (const timeZone of ['Mars/Olympus', '+01:00', '-0330', 'europe/berlin', 'utc', 'SystemV/AST4']) {
      expect([timeZone, ...(await refusal({ timeZone }))]).toEqual([timeZone, 400, 'invalid_request'])
    }
    expect(await refusal({ every: 60 })).toEqual([400, 'invalid_request'])
    expect(await refusal({ cron: undefined, every: 59 })).toEqual([400, 'invalid_request'])
    const id = await makeSchedule(api, tenant)
    const change = { key: tenant.key, body: { timeZone: '+02:00' } }
    expect((await api.ask('PATCH', `/api/v1/schedules/${id}`, change)).status).toBe(400)
    expect(await refusal({})).toEqual([409, 'already_exists'])
  })

  test('takes no name that another one is just being given', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const first = await makeSchedule(api, tenant)
    const second = await makeSchedule(api, tenant, { name: 'second' })
    const rename = (id: string, name: string) =>
      api.ask('PATCH', `/api/v1/schedules/${id}`, { key: tenant.key, body: { name } })
    expect(await rename(second, 'nightly')).toMatchObject({ status: 409, body: { code: 'already_exists' } })
    const trx = await api.db.startTransaction().execute()
    await changeSchedule(trx, tenant, { scheduleId: first, to: { name: 'new' } })
    const renamed = rename(second, 'new')
    const waits = async () => {
      const { rows } = await sql`
        select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`.execute(api.db)
      return rows.length > 0
    }
    await pollUntil(waits, { what: 'the second one waits for the name' })
    await trx.commit().execute()
    expect(await renamed).toMatchObject({ status: 409, body: { code: 'already_exists' } })
  })

  test('is paid by the key that says what it runs, within the constraints of that key', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const path = `/api/v1/schedules/${await makeSchedule(api, tenant)}`
    const body = { name: 'narrow', constraints: { models: ['research'] } }
    const made = await api.make(`/api/v1/projects/${tenant.projectId}/keys`, { key: api.operatorKey, body })
    const key = text(made, 'secret')
    const pockets = [{ balanceClass: 'direct', amount: usd('9') }]
    const wide = { run: runBody({ model: 'steady', envelope: { pockets } }) }
    expect(await api.ask('PATCH', path, { key, body: wide })).toMatchObject({ body: { code: 'route_not_allowed' } })
    const narrow = { run: runBody({ model: 'research', envelope: { pockets } }) }
    expect((await api.ask('PATCH', path, { key, body: narrow })).body).toMatchObject({ keyId: text(made, 'id') })
    const paused = await api.ask('PATCH', path, { key: tenant.key, body: { state: 'paused' } })
    expect(paused.body).toMatchObject({ state: 'paused', keyId: text(made, 'id') })
  })

  test('of one project is nobody else’s', async () => {
    const api = await useApi()
    const [mine, other] = [await makeTenant(api), await makeTenant(api)]
    const path = `/api/v1/schedules/${await makeSchedule(api, mine)}`
    for (const [method, at, body] of [
      ['GET', path, undefined],
      ['GET', `${path}/firings`, undefined],
      ['PATCH', path, { state: 'paused' }],
      ['DELETE', path, undefined],
    ] as const) {
      expect((await api.ask(method, at, { key: other.key, body })).status).toBe(404)
    }
  })
})

describe('a time of a schedule', () => {
  test('brings one run, however often it is fired, and shows with it', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const id = await makeSchedule(api, tenant)
    const fired = await Promise.all([1, 1, 1, 1].map((hour) => fire(api, id, hour)))
    const [first] = fired
    expect(first).toMatchObject({ kind: 'started' })
    expect(fired).toEqual([first, first, first, first])
    const runs = await api.ask('GET', '/api/v1/runs', { key: tenant.key })
    expect(runs.body).toMatchObject({ runs: [{ state: 'queued' }] })
    const runId = first?.kind === 'started' ? first.runId : ''
    expect((await api.ask('GET', `/api/v1/runs/${runId}`, { key: tenant.key })).body).toMatchObject({
      scheduleId: id,
      input: { text: 'hello', times: 1 },
      envelope: { pockets: [{ funded: usd('1.000000') }] },
    })
    const firings = await api.ask('GET', `/api/v1/schedules/${id}/firings`, { key: tenant.key })
    expect(firings.body).toMatchObject({
      firings: [{ runId, skipped: null, scheduledFor: '2026-01-01T01:00:00.000Z' }],
    })
  })

  test('brings none while the last run is not over, or the schedule is paused', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const id = await makeSchedule(api, tenant)
    const runId = await runOf(api, id, 1)
    expect(await fire(api, id, 2)).toMatchObject({ kind: 'skipped', reason: 'overlap' })
    await finish(api, tenant, runId)
    await api.ask('PATCH', `/api/v1/schedules/${id}`, { key: tenant.key, body: { state: 'paused' } })
    expect(await fire(api, id, 3)).toMatchObject({ kind: 'skipped', reason: 'paused' })
    await api.ask('PATCH', `/api/v1/schedules/${id}`, { key: tenant.key, body: { state: 'active' } })
    await runOf(api, id, 4)
    expect(
      await listFirings(api.db, tenant, { scheduleId: id, limit: 9, order: 'desc', after: undefined }),
    ).toMatchObject([
      { skipped: null },
      { skipped: 'paused', runId: null },
      { skipped: 'overlap', runId: null },
      { skipped: null, runId },
    ])
  })

  test('brings none when the month’s cap would be exceeded; what came home counts no more', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const id = await makeSchedule(api, tenant, { monthlyCap: [{ balanceClass: 'direct', amount: usd('1.5') }] })
    const runId = await runOf(api, id, 1)
    await finish(api, tenant, runId)
    const next = await runOf(api, id, 2)
    await finish(api, tenant, next)
    const path = `/api/v1/schedules/${id}`
    const pockets = [{ balanceClass: 'direct', amount: usd('1.500000001') }]
    const body = { run: runBody({ envelope: { pockets } }) }
    expect((await api.ask('PATCH', path, { key: tenant.key, body })).status).toBe(200)
    expect(await fire(api, id, 3)).toMatchObject({ kind: 'skipped', reason: 'monthly_cap' })
  })

  test('brings none when the wallet is short, and nothing is left of the attempt', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const pockets = [
      { balanceClass: 'credit', amount: usd('1') },
      { balanceClass: 'direct', amount: usd('11') },
    ]
    const id = await makeSchedule(api, tenant, { run: runBody({ envelope: { pockets } }) })
    expect(await fire(api, id, 1)).toMatchObject({ kind: 'skipped', reason: 'wallet_short' })
    const wallet = await api.ask('GET', `/api/v1/projects/${tenant.projectId}/wallet`, { key: tenant.key })
    expect(wallet.body['balances']).toMatchObject([{ inEnvelopes: usd('0.000000') }, { inEnvelopes: usd('0.000000') }])
    expect((await api.ask('GET', '/api/v1/runs', { key: tenant.key })).body).toMatchObject({ runs: [] })
  })

  test('brings none when the key that pays was revoked: the schedule stops, and is not resumed', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const id = await makeSchedule(api, tenant)
    const other = await api.make(`/api/v1/projects/${tenant.projectId}/keys`, {
      key: api.operatorKey,
      body: { name: 'other' },
    })
    const key = text(other, 'secret')
    expect((await api.ask('DELETE', `/api/v1/keys/${tenant.keyId}`, { key: api.operatorKey })).status).toBe(204)
    expect(await fire(api, id, 1)).toMatchObject({ kind: 'skipped', reason: 'key_revoked' })
    const path = `/api/v1/schedules/${id}`
    expect((await api.ask('GET', path, { key })).body).toMatchObject({ state: 'paused', stateReason: 'key_revoked' })
    expect((await api.ask('PATCH', path, { key, body: { state: 'active' } })).status).toBe(403)
  })

  test('that comes too late brings none, and one within its time does', async () => {
    const api = await useApi()
    const id = await makeSchedule(api, await makeTenant(api))
    const at = (agoMs: number) => {
      const scheduledFor = new Date(Date.now() - agoMs)
      return fireSchedule(api.db, { scheduleId: id, scheduledFor, nowMs: Date.now(), lateAfterMs: 3_600_000 })
    }
    // No worker was there for three hours.
    expect(await at(3 * 3_600_000)).toMatchObject({ kind: 'skipped', reason: 'late' })
    expect(await at(1_800_000)).toMatchObject({ kind: 'started' })
  })

  test('of a schedule that does not exist is no firing', async () => {
    const api = await useApi()
    await expect(fire(api, newId(Date.now()), 1)).rejects.toThrow()
  })
})
