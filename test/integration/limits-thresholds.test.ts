import { newId } from '#db/ids.ts'
import { changeLimit, getLimit } from '#db/limit.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { makeTenant, startTestRun, text, usd, useApi } from '../support/api.ts'
import { createLimitWorld } from '../support/limits.ts'

const LIMITS = '/api/v1/limits'
const NOT_OF_ORGANISATIONS = 'thresholds: go with the scopes project, key, run and step'

test('thresholds are shown, and changed with the cap or without it, each change once', async () => {
  const api = await useApi()
  const key = api.operatorKey
  const tenant = await makeTenant(api)
  const asked = { scope: 'key', subjectId: tenant.keyId, measure: 'money', period: 'month', cap: usd('100') }
  const limit = await api.make(LIMITS, { key, body: { ...asked, thresholds: [80, 100] } })
  expect(limit).toMatchObject({ thresholds: [80, 100], version: 1 })
  expect(await api.make(LIMITS, { key, body: asked })).toMatchObject({ thresholds: [] })
  const path = `${LIMITS}/${text(limit, 'id')}`
  const change = async (body: object, headers = {}) => {
    const answer = await api.ask('PATCH', path, { key, body, headers })
    return { status: answer.status, headers: answer.headers, ...answer.body }
  }
  const first = await change({ thresholds: [50] })
  expect(first).toMatchObject({ status: 200, cap: usd('100.000000'), thresholds: [50], version: 2 })
  expect(await change({ thresholds: [50] })).toMatchObject({ status: 200, version: 2 })
  const both = await change({ thresholds: [1, 100], cap: usd('7') }, { 'if-match': first.headers['etag'] })
  expect(both).toMatchObject({ status: 200, cap: usd('7.000000'), thresholds: [1, 100], version: 3 })
  const late = await change({ thresholds: [] }, { 'if-match': first.headers['etag'] })
  expect(late).toMatchObject({ status: 412, code: 'changed_meanwhile' })
  expect(await change({ cap: usd('8') })).toMatchObject({ status: 200, thresholds: [1, 100], version: 4 })
  expect(await change({ thresholds: [] })).toMatchObject({ status: 200, cap: usd('8.000000'), thresholds: [] })
  const shown = (await api.ask('GET', LIMITS, { key })).body['limits']
  expect(shown).toContainEqual(expect.objectContaining({ id: limit['id'], thresholds: [], version: 5 }))

  const audit = await api.ask('GET', `/api/v1/audit?action=limit.change&order=asc`, { key })
  const events = z.array(z.object({ before: z.looseObject({}), after: z.looseObject({}) })).parse(audit.body['events'])
  const [told, , cut] = events
  expect(told).toMatchObject({ before: { thresholds: [80, 100] }, after: { thresholds: [50] } })
  expect(cut).toMatchObject({
    before: { thresholds: [50], cap: usd('100.000000') },
    after: { thresholds: [1, 100], cap: usd('7.000000') },
  })
  await api.ask('DELETE', path, { key })
  expect(await change({ thresholds: [9] })).toMatchObject({ status: 409, code: 'limit_retired' })
  const changes = api.db.selectFrom('limit_change').select(['change', 'thresholds']).orderBy('id')
  expect(await changes.where('limit_id', '=', text(limit, 'id')).execute()).toEqual([
    { change: 'set', thresholds: [80, 100] },
    { change: 'thresholds', thresholds: [50] },
    { change: 'cap', thresholds: [1, 100] },
    { change: 'cap', thresholds: [1, 100] },
    { change: 'thresholds', thresholds: [] },
    { change: 'retire', thresholds: [] },
  ])
})

test('a project has thresholds on its runs and steps, and changes none of an operator', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const run = await startTestRun(api, tenant)
  const calls = { measure: 'calls', period: 'life', cap: 3, thresholds: [66] }
  const own = await api.make(LIMITS, {
    key: tenant.key,
    body: { ...calls, scope: 'step', subjectId: run, step: 'read' },
  })
  const theirs = await api.make(LIMITS, { key: api.operatorKey, body: { ...calls, scope: 'run', subjectId: run } })
  const asked = [own, theirs].map((limit) =>
    api.ask('PATCH', `${LIMITS}/${text(limit, 'id')}`, { key: tenant.key, body: { thresholds: [33] } }),
  )
  expect((await Promise.all(asked)).map(({ status, body }) => [status, body['thresholds']])).toEqual([
    [200, [33]],
    [403, undefined],
  ])
})

test('thresholds that are none are refused, saying what to send, and nothing is written', async () => {
  const api = await useApi()
  const key = api.operatorKey
  const tenant = await makeTenant(api)
  const good = { scope: 'project', subjectId: tenant.projectId, measure: 'calls', period: 'day', cap: 5 }
  const ofAll = { scope: 'organisation', measure: 'calls', period: 'day', cap: 5 }
  const limit = await api.make(LIMITS, { key, body: { ...good, thresholds: [80] } })
  const wide = await api.make(LIMITS, { key, body: { ...ofAll, thresholds: [] } })
  const bad: readonly (readonly [unknown, string])[] = [
    [[0], 'thresholds.0: is not a percentage: a whole number from 1 to 100'],
    [[80, 101], 'thresholds.1: is not a percentage: a whole number from 1 to 100'],
    [[99.5], 'thresholds.0: is not a percentage: a whole number from 1 to 100'],
    [['80'], 'thresholds.0: is not a percentage: a whole number from 1 to 100'],
    [[80, 90, 80], 'thresholds: names a percentage twice'],
    [Array.from({ length: 21 }, (_, index) => index + 1), 'thresholds: has more than 20 percentages'],
    [80, 'thresholds'],
    [null, 'thresholds'],
  ]
  for (const [thresholds, said] of bad) {
    const answers = [
      await api.ask('POST', LIMITS, { key, body: { ...good, thresholds } }),
      await api.ask('PATCH', `${LIMITS}/${text(limit, 'id')}`, { key, body: { thresholds } }),
    ]
    const refused = [400, expect.stringContaining(said)]
    expect(answers.map(({ status, body }) => [status, body['detail']])).toEqual([refused, refused])
  }
  const change = (id: string, body: object) => api.ask('PATCH', `${LIMITS}/${id}`, { key, body })
  const answers = [
    [await api.ask('POST', LIMITS, { key, body: { ...ofAll, thresholds: [80] } }), NOT_OF_ORGANISATIONS],
    [await change(text(wide, 'id'), { thresholds: [80] }), NOT_OF_ORGANISATIONS],
    [await change(text(limit, 'id'), {}), 'changes nothing: send a cap, thresholds, or both'],
    [await change(text(limit, 'id'), { thresholds: [9], cap: usd('5') }), 'cap'],
  ] as const
  for (const [{ status, body }, said] of answers) {
    expect([status, body['detail']]).toEqual([400, expect.stringContaining(said)])
  }
  const kept = await api.db.selectFrom('usage_limit').select('thresholds').orderBy('id').execute()
  expect(kept).toEqual([{ thresholds: [80] }, { thresholds: [] }])
  expect(await api.db.selectFrom('limit_change').select('id').execute()).toHaveLength(2)
})

test('the database takes no others either, and a cap alone from processes that know of no thresholds', async () => {
  const world = await createLimitWorld()
  const { organisationId } = world
  const operator = { keyId: newId(Date.now()), organisationId, projectId: null }
  const wide = { scope: 'organisation', subjectId: organisationId } as const
  const [limitId, ofAll] = [await world.limit({ thresholds: [80] }), await world.limit(wide)]
  const bad = [[0], [101], [7, 7], Array.from({ length: 21 }, (_, index) => index + 1)]
  for (const thresholds of bad) {
    expect(await changeLimit(world.db, operator, { limitId, thresholds })).toBe('invalid_thresholds')
    await expect(world.limit({ thresholds })).rejects.toThrow('invalid_limit')
  }
  expect(await changeLimit(world.db, operator, { limitId: ofAll, thresholds: [80] })).toBe('invalid_thresholds')
  expect(await changeLimit(world.db, operator, { limitId: ofAll, thresholds: [] })).toBe('changed')
  await expect(world.limit({ ...wide, thresholds: [80] })).rejects.toThrow('invalid_limit')
  const changeCap = async (cap: bigint | null) => {
    const { rows } = await sql`
      select change_limit_cap(${organisationId}, null, ${limitId}, ${cap}, ${operator.keyId}) as verdict`.execute(
      world.db,
    )
    return rows
  }
  expect([await changeCap(50n), await changeCap(null)]).toEqual([
    [{ verdict: 'changed' }],
    [{ verdict: 'invalid_cap' }],
  ])
  expect(await getLimit(world.db, operator, limitId)).toMatchObject({ cap: 50n, thresholds: [80], version: 2 })
})
