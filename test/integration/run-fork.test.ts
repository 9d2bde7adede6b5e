import { openChildRun } from '#db/child-run.ts'
import { deriveId } from '#db/ids.ts'
import { putPayload } from '#db/payload.ts'
import { readReport } from '#db/report.ts'
import { forkedPayload } from '#db/run-source.ts'
import { runFacts } from '#db/run.ts'
import { expect, test } from 'vitest'
import { makeTenant, startTestRun, text, usd, useApi } from '#test/support/api.ts'
import { useEngine } from '#test/support/api-engine.ts'
import { expectVerified } from '#test/support/open-attempt.ts'
import { requestsSeen } from '#test/support/world.ts'

const STEPS = ['plan', 'read/0', 'read/1', 'write'] as const

test('a fork from the last step makes exactly the requests of that step, and so does a fork of the fork', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { world, call } = await useEngine(api, tenant)
  const { key } = tenant
  const first = await startTestRun(api, tenant)
  for (const path of STEPS) await call(first, path)
  expect(await requestsSeen(world.sandbox)).toHaveLength(4)

  const nowhere = await api.ask('POST', `/api/v1/runs/${first}/fork`, { key, body: { from: 'rea' } })
  expect(nowhere).toMatchObject({ status: 422, body: { code: 'unknown_step', paths: [...STEPS] } })
  const forked = await api.make(`/api/v1/runs/${first}/fork`, { key, body: { from: 'write' } })
  expect(forked).toMatchObject({ state: 'queued', sourceRunId: first, input: { text: 'hello', times: 1 } })
  const fork = text(forked, 'id')
  for (const path of STEPS) expect((await call(fork, path)).kind).toBe('answered')
  expect(await requestsSeen(world.sandbox)).toHaveLength(5)
  const report = await readReport(world.db, world.scope, fork)
  expect(report?.counts).toMatchObject({ calls: 4, attempts: 1, reused: 3 })
  expect(report?.calls.filter(({ reusedFrom }) => reusedFrom === null).map(({ path }) => path)).toEqual(['write'])
  const paid = await readReport(world.db, world.scope, first)
  const [last] = paid?.calls.filter(({ path }) => path === 'write') ?? []
  expect(report?.totals.map(({ spent }) => spent)).toEqual(last?.attempts.map(({ captured }) => captured))

  const again = text(await api.make(`/api/v1/runs/${fork}/fork`, { key, body: { from: 'read' } }), 'id')
  for (const path of STEPS) await call(again, path)
  expect(await requestsSeen(world.sandbox)).toHaveLength(8)
  const whole = text(await api.make(`/api/v1/runs/${again}/fork`, { key }), 'id')
  for (const path of STEPS) await call(whole, path)
  expect(await requestsSeen(world.sandbox)).toHaveLength(8)
  await expectVerified(world)
}, 60_000)

test('a run is done again as it was asked for, with what is to be another, and pays for everything', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { world, call } = await useEngine(api, tenant)
  const { key } = tenant
  const envelope = { pockets: [{ balanceClass: 'direct', amount: usd('0.5') }], wrapUpPercent: 10 }
  const downgrade = { model: 'research', then: 'pause' }
  const choices = {
    onExhausted: 'downgrade',
    downgrade,
    mayRepeat: 2,
    limits: { calls: 9 },
    thresholds: [50],
    priority: 1,
  }
  const first = await startTestRun(api, tenant, { envelope, ...choices })
  await call(first, 'plan')
  const same = await api.make(`/api/v1/runs/${first}/rerun`, { key })
  expect(same).toMatchObject({ ...choices, sourceRunId: first, agent: 'echo', model: 'steady', wrapUpPercent: 10 })
  await call(text(same, 'id'), 'plan')
  expect(await requestsSeen(world.sandbox)).toHaveLength(2)
  const other = await api.make(`/api/v1/runs/${first}/rerun`, {
    key,
    body: { model: 'research', onExhausted: 'cancel' },
  })
  expect(other).toMatchObject({ model: 'research', onExhausted: 'cancel', downgrade: null, limits: { calls: 9 } })
  const bad = await api.ask('POST', `/api/v1/runs/${first}/rerun`, { key, body: { onExhausted: 'never', input: {} } })
  expect(bad).toMatchObject({ status: 400, body: { errors: [{ path: 'onExhausted' }, { path: 'input' }] } })
  const none = await api.ask('POST', `/api/v1/runs/${first}/rerun`, { key, body: { model: 'nothing' } })
  expect(none.body['code']).toBe('unknown_model')
})

test('the child of a fork is forked from the child at the same path, and a child alone needs an envelope', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { world, call } = await useEngine(api, tenant)
  const open = async (runId: string) => {
    const child = await openChildRun(world.db, world.scope, { runId, path: 'sub', agent: 'echo', input: { text: 'x' } })
    if (child.kind !== 'opened') throw new Error(child.detail)
    return child.runId
  }
  const first = await startTestRun(api, tenant)
  const child = await open(first)
  await call(child, 'plan')
  const fork = text(await api.make(`/api/v1/runs/${first}/fork`, { key: tenant.key }), 'id')
  const forked = await open(fork)
  expect(await runFacts(world.db, forked)).toMatchObject({ fork: { sourceRunId: child } })
  await call(forked, 'plan')
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
  const alone = await api.ask('POST', `/api/v1/runs/${child}/rerun`, { key: tenant.key })
  expect(alone).toMatchObject({ status: 400, body: { errors: [{ path: 'envelope' }] } })
})

test('what a tool gave before the fork is given again, to a fork alone and in its own project', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const scope = { projectId: tenant.projectId }
  const idIn = (runId: string) => deriveId(runId, 'tool', 'search/0')
  const first = await startTestRun(api, tenant)
  const body = { value: { hits: [] } }
  await putPayload(api.db, scope, { id: idIn(first), runId: first, kind: 'tool', body })
  const again = async (how: 'fork' | 'rerun') =>
    text(await api.make(`/api/v1/runs/${first}/${how}`, { key: tenant.key }), 'id')
  const [fork, rerun] = [await again('fork'), await again('rerun')]
  expect(await forkedPayload(api.db, scope, { runId: fork, idIn })).toEqual({ isErased: false, body })
  expect(await forkedPayload(api.db, scope, { runId: rerun, idIn })).toBeUndefined()
  const foreign = { projectId: (await makeTenant(api)).projectId }
  expect(await forkedPayload(api.db, foreign, { runId: fork, idIn })).toBeUndefined()
  const later = (runId: string) => deriveId(runId, 'tool', 'search/1')
  await putPayload(api.db, scope, { id: later(first), runId: first, kind: 'tool', body })
  expect(await forkedPayload(api.db, scope, { runId: fork, idIn: later })).toBeUndefined()
})
