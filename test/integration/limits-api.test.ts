import { newId } from '#db/ids.ts'
import { expect, test } from 'vitest'
import { makeOperator, makeTenant, startTestRun, text, usd, useApi } from '#test/support/api.ts'

const LIMITS = '/api/v1/limits'

test('an operator limits organisation, project, key, run and step; each shows its window of now', async () => {
  const api = await useApi()
  const key = api.operatorKey
  const tenant = await makeTenant(api)
  const run = await startTestRun(api, tenant)
  const bodies = [
    { scope: 'organisation', measure: 'money', period: 'month', timeZone: 'Europe/Berlin', cap: usd('100') },
    { scope: 'project', subjectId: tenant.projectId, measure: 'money', period: 'life', cap: usd('0') },
    { scope: 'key', subjectId: tenant.keyId, measure: 'tokens', period: 'minute', cap: 1_000_000_000_000_000 },
    { scope: 'run', subjectId: run, measure: 'calls', period: 'hour', cap: 0 },
    { scope: 'step', subjectId: tenant.projectId, step: 'read/deep', measure: 'calls', period: 'week', cap: 9 },
    { scope: 'step', subjectId: tenant.keyId, step: 'read', measure: 'money', period: 'day', cap: usd('0.000000001') },
  ]
  for (const body of bodies) {
    const limit = await api.make(LIMITS, { key, body })
    const { subjectId = limit['subjectId'] } = body
    const cap = typeof body.cap === 'number' ? body.cap : { ...body.cap, amount: expect.any(String) }
    const nothing = typeof body.cap === 'number' ? 0 : { amount: '0.000000', currency: 'USD' }
    expect(limit).toMatchObject({ ...body, subjectId, cap, setBy: 'operator', retiredAt: null })
    expect(limit['window']).toMatchObject({ spent: nothing, held: nothing, leased: nothing, free: limit['cap'] })
    expect((await api.ask('GET', `${LIMITS}/${text(limit, 'id')}`, { key })).body).toEqual(limit)
  }
  const all = await api.ask('GET', `${LIMITS}?limit=4`, { key })
  const rest = await api.ask('GET', `${LIMITS}?limit=4&cursor=${text(all.body, 'nextCursor')}`, { key })
  const listed = [all, rest].flatMap(({ body }) => body['limits'])
  expect(listed).toHaveLength(bodies.length)
  const ofProject = await api.ask('GET', `${LIMITS}?projectId=${tenant.projectId}`, { key: tenant.key })
  expect(ofProject.body['limits']).toHaveLength(5)
  const ofKey = await api.ask('GET', `${LIMITS}?subjectId=${tenant.keyId}`, { key: tenant.key })
  expect(ofKey.body['limits']).toHaveLength(2)
})

test('a cap is changed and a limit retired, for good', async () => {
  const api = await useApi()
  const key = api.operatorKey
  const tenant = await makeTenant(api)
  const body = { scope: 'project', subjectId: tenant.projectId, measure: 'money', period: 'day', cap: usd('1') }
  const id = text(await api.make(LIMITS, { key, body }), 'id')
  const changed = await api.ask('PATCH', `${LIMITS}/${id}`, { key, body: { cap: usd('2.5') } })
  expect([changed.status, changed.body['cap']]).toEqual([200, usd('2.500000')])
  for (const cap of [5, { amount: '1', currency: 'CNY' }, usd('-1'), usd('1000001'), null, 1.5]) {
    expect((await api.ask('PATCH', `${LIMITS}/${id}`, { key, body: { cap } })).status).toBe(400)
  }
  expect((await api.ask('DELETE', `${LIMITS}/${id}`, { key })).status).toBe(204)
  expect((await api.ask('DELETE', `${LIMITS}/${id}`, { key })).status).toBe(204)
  const late = await api.ask('PATCH', `${LIMITS}/${id}`, { key, body: { cap: usd('3') } })
  expect([late.status, late.body['code']]).toEqual([409, 'limit_retired'])
  expect((await api.ask('GET', LIMITS, { key })).body['limits']).toEqual([])
  const kept = await api.ask('GET', `${LIMITS}/${id}`, { key })
  expect(kept.body).toMatchObject({ cap: usd('2.500000'), retiredAt: expect.any(String) })
  const changes = await api.db.selectFrom('limit_change').select(['change', 'cap']).orderBy('id').execute()
  expect(changes).toEqual([
    { change: 'set', cap: 1_000_000_000n },
    { change: 'cap', cap: 2_500_000_000n },
    { change: 'retire', cap: 2_500_000_000n },
  ])
})

test("a project's key limits its runs and steps, and lifts nothing that an operator has set", async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const run = await startTestRun(api, tenant)
  const onRun = { scope: 'run', subjectId: run, measure: 'calls', period: 'life', cap: 3 }
  const own = await api.make(LIMITS, { key: tenant.key, body: onRun })
  expect(own['setBy']).toBe('project')
  const theirs = text(await api.make(LIMITS, { key: api.operatorKey, body: onRun }), 'id')
  const asked = [
    await api.ask('PATCH', `${LIMITS}/${text(own, 'id')}`, { key: tenant.key, body: { cap: 4 } }),
    await api.ask('PATCH', `${LIMITS}/${theirs}`, { key: tenant.key, body: { cap: 4 } }),
    await api.ask('DELETE', `${LIMITS}/${theirs}`, { key: tenant.key }),
    await api.ask('GET', `${LIMITS}/${theirs}`, { key: tenant.key }),
    await api.ask('DELETE', `${LIMITS}/${text(own, 'id')}`, { key: tenant.key }),
    ...(await Promise.all(
      [
        { ...onRun, scope: 'project', subjectId: tenant.projectId },
        { ...onRun, scope: 'key', subjectId: tenant.keyId },
        { scope: 'organisation', measure: 'calls', period: 'life', cap: 3 },
      ].map((body) => api.ask('POST', LIMITS, { key: tenant.key, body })),
    )),
  ]
  expect(asked.map(({ status }) => status)).toEqual([200, 403, 403, 200, 204, 403, 403, 403])
})

test('bad limits are refused by name, and nothing is written', async () => {
  const api = await useApi()
  const key = api.operatorKey
  const tenant = await makeTenant(api)
  const good = { scope: 'project', subjectId: tenant.projectId, measure: 'money', period: 'day', cap: usd('1') }
  const bad: readonly (readonly [object, number, string])[] = [
    [{ ...good, timeZone: 'Mars/Base' }, 400, 'timeZone'],
    [{ ...good, timeZone: "UTC'; drop table lease; --" }, 400, 'timeZone'],
    [{ ...good, timeZone: 'FOO+3' }, 400, 'timeZone'],
    [{ ...good, period: 'year' }, 400, 'period'],
    [{ ...good, cap: usd('-1') }, 400, 'cap'],
    [{ ...good, cap: usd('1000000.000000001') }, 400, 'cap'],
    [{ ...good, cap: { amount: '1', currency: 'usd' } }, 400, 'currency'],
    [{ ...good, cap: 5 }, 400, 'cap'],
    [{ ...good, measure: 'tokens' }, 400, 'cap'],
    [{ ...good, measure: 'tokens', cap: 1_000_000_000_000_001 }, 400, 'cap'],
    [{ ...good, measure: 'time', cap: 1 }, 400, 'measure'],
    [{ ...good, step: 'read' }, 400, 'step'],
    [{ ...good, scope: 'step' }, 400, 'step'],
    [{ ...good, scope: 'step', step: '/read/' }, 400, 'step'],
    [{ ...good, scope: 'step', step: '' }, 400, 'step'],
    [{ ...good, scope: 'step', step: 'a\u0000b' }, 400, 'step'],
    [{ ...good, scope: 'organisation' }, 400, 'subjectId'],
    [{ ...good, subjectId: undefined }, 400, 'subjectId'],
    [{ ...good, subjectId: 'x' }, 404, 'no project'],
    [{ ...good, subjectId: newId(Date.now()) }, 404, 'no project'],
    [{ ...good, scope: 'run' }, 404, 'no run'],
    [{ ...good, scope: 'key' }, 404, 'no key'],
    [{ ...good, extra: 1 }, 400, 'extra'],
  ]
  for (const [body, status, named] of bad) {
    const answer = await api.ask('POST', LIMITS, { key, body })
    expect([answer.status, answer.body['detail']]).toEqual([status, expect.stringContaining(named)])
  }
  const stranger = await makeOperator(api.db, 'another')
  expect((await api.ask('POST', LIMITS, { key: stranger, body: good })).status).toBe(404)
  expect(await api.db.selectFrom('usage_limit').selectAll().execute()).toEqual([])
})

test('setting a limit twice with one Idempotency-Key sets one', async () => {
  const api = await useApi()
  const body = { scope: 'organisation', measure: 'tokens', period: 'day', cap: 10 }
  const ask = () => api.ask('POST', LIMITS, { key: api.operatorKey, body, headers: { 'idempotency-key': 'once' } })
  const [one, two] = [await ask(), await ask()]
  expect([one.status, two.status, two.body]).toEqual([201, 201, one.body])
  expect(await api.db.selectFrom('usage_limit').selectAll().execute()).toHaveLength(1)
})
