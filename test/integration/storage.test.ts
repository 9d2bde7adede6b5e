import { executeCall } from '#calls/execute.ts'
import { openChildRun } from '#db/child-run.ts'
import { deriveId } from '#db/ids.ts'
import { putPayload } from '#db/payload.ts'
import { getRun } from '#db/run-read.ts'
import { forkedPayload } from '#db/run-source.ts'
import { loadContents } from '#activities/prompt-contents.ts'
import { readCallStory } from '#db/call-story.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { makeTenant, startTestRun, text, useApi } from '../support/api.ts'
import { useEngine } from '../support/api-engine.ts'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'
import { endRun, eraseAll, keep, letPass, tablesWith } from '../support/storage.ts'
import { tamper } from '../support/tamper.ts'
import { createWorld, requestsSeen, type World } from '../support/world.ts'
import { verifyLedger } from '#db/verify.ts'

const DOLLAR = { direct: 1_000_000_000n }
const SECRET = '<passage id="p1">The vault of Orvane opens with 4711-kestrel.</passage> How does the vault open?'
const CANARY = '4711-kestrel'

/** A run with two calls that is over. */
async function finishedRun(world: World) {
  const engine = await world.startEngine()
  const run = await world.openRun(DOLLAR)
  const answers = []
  for (const path of ['one', 'two']) answers.push(await executeCall(engine, run.request(path, SECRET)))
  expect(answers).toMatchObject([{ kind: 'answered' }, { kind: 'answered' }])
  await endRun(world, run.runId, { opens: CANARY })
  return { engine, run, callId: answers[0]?.callId ?? '' }
}

test('an operator says how a project keeps its texts, and the audit log has it', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const path = `/api/v1/projects/${tenant.projectId}`
  expect((await api.ask('GET', path, { key: tenant.key })).body).toMatchObject({ storage: 'full', keepDays: null })
  const change = (body: object, key = api.operatorKey) => api.ask('PATCH', path, { key, body })
  expect((await change({ storage: 'hash_only' }, tenant.key)).status).toBe(403)
  for (const wrong of [{}, { storage: 'none' }, { keepDays: 0 }, { keepDays: 36_501 }, { keepDays: 1.5 }]) {
    expect((await change(wrong)).body).toMatchObject({ code: 'invalid_request' })
  }
  expect((await change({ storage: 'hash_only', keepDays: 30 })).body).toMatchObject({
    storage: 'hash_only',
    keepDays: 30,
    maxRunningRuns: 50,
  })
  expect((await change({ keepDays: null })).body).toMatchObject({ storage: 'hash_only', keepDays: null })
  const audit = await api.ask('GET', `/api/v1/audit?limit=2&projectId=${tenant.projectId}`, { key: api.operatorKey })
  expect(audit.body).toMatchObject({
    events: [
      { action: 'project.change', before: { keepDays: 30 }, after: { keepDays: null } },
      { action: 'project.change', before: { storage: 'full' }, after: { storage: 'hash_only', keepDays: 30 } },
    ],
  })
})

test('where only hashes are kept, nothing of what a run asked and was answered is left once it is over', async () => {
  const world = await createWorld()
  const { engine, run, callId } = await finishedRun(world)
  expect(await tablesWith(world, CANARY)).toEqual(['payload', 'run'])
  await letPass(world, '1 day')
  expect(await eraseAll(world)).toEqual({ payloads: 0, runs: 0 })

  await keep(world, 'hash_only')
  expect(await eraseAll(world)).toEqual({ payloads: 4, runs: 1 })
  expect(await tablesWith(world, CANARY)).toEqual([])
  const again = await executeCall(engine, run.request('one', SECRET))
  expect(again).toMatchObject({ kind: 'failed', reason: 'answer_not_stored', callId })
  expect(await requestsSeen(world.sandbox)).toHaveLength(2)
  await expectVerified(world)
})

test('what was erased can still be proven by whoever has it', async () => {
  const world = await createWorld()
  const { callId, run } = await finishedRun(world)
  const before = await readCallStory(world.db, world.scope, callId)
  expect(before?.stored).toEqual({
    request: { erasedAt: null, sha256: null },
    answer: { erasedAt: null, sha256: null },
  })
  const { body } = run.request('one', SECRET)
  await keep(world, 'hash_only')
  await letPass(world, '1 day')
  await eraseAll(world)
  const after = await readCallStory(world.db, world.scope, callId)
  const { rows } = await sql<{ sha256: string }>`
    select encode(payload_digest(${JSON.stringify(body)}::jsonb), 'hex') as sha256`.execute(world.db)
  expect(after?.stored.request.sha256).toBe(rows[0]?.sha256)
  expect(after?.stored.answer?.sha256).toMatch(/^[0-9a-f]{64}$/)
  expect(after?.stored.answer?.erasedAt).not.toBeNull()
  const { outputSha256, output } = await getRun(world.db, world.scope, run.runId)
  const { rows: delivered } = await sql<{ sha256: string }>`
    select encode(payload_digest(${JSON.stringify({ opens: CANARY })}::jsonb), 'hex') as sha256`.execute(world.db)
  expect([output, outputSha256]).toEqual([null, delivered[0]?.sha256])
})

test('a run that has just ended can be read a while, and one that is at work keeps everything', async () => {
  const world = await createWorld()
  await keep(world, 'hash_only', 1)
  const { engine, run } = await finishedRun(world)
  const atWork = await world.openRun(DOLLAR)
  await executeCall(engine, atWork.request('one', SECRET))
  await letPass(world, '19 minutes')
  expect(await eraseAll(world)).toEqual({ payloads: 0, runs: 0 })
  expect(await executeCall(engine, run.request('one', SECRET))).toMatchObject({ kind: 'answered' })
  await letPass(world, '400 days')
  expect(await eraseAll(world)).toEqual({ payloads: 4, runs: 1 })
  expect(await executeCall(engine, atWork.request('one', SECRET))).toMatchObject({ kind: 'answered' })
  expect(await requestsSeen(world.sandbox)).toHaveLength(3)
  await expectVerified(world)
})

test('texts stay for the days that a project keeps them after the end of their run', async () => {
  const world = await createWorld()
  const { engine, run } = await finishedRun(world)
  await keep(world, 'full', 30)
  await letPass(world, '29 days')
  expect(await eraseAll(world)).toEqual({ payloads: 0, runs: 0 })
  expect(await executeCall(engine, run.request('one', SECRET))).toMatchObject({ kind: 'answered' })
  await letPass(world, '2 days')
  expect(await eraseAll(world)).toEqual({ payloads: 4, runs: 1 })
  await expectVerified(world)
})

test('a child keeps its texts until all above it are over, and its tools give them up with it', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { world, call } = await useEngine(api, tenant)
  await keep(world, 'hash_only')
  const root = await startTestRun(api, tenant)
  const opened = await openChildRun(world.db, world.scope, { runId: root, path: 'sub', agent: 'echo', input: {} })
  if (opened.kind !== 'opened') throw new Error(opened.detail)
  const child = opened.runId
  await call(root, 'plan')
  await call(child, 'read')
  const tool = { id: deriveId(child, 'tool', 'search/0'), runId: child, kind: 'tool' as const, body: { value: CANARY } }
  await putPayload(world.db, world.scope, tool)
  await endRun(world, child)
  await letPass(world, '1 day')
  expect(await eraseAll(world)).toEqual({ payloads: 0, runs: 0 })
  await endRun(world, root)
  await letPass(world, '1 day')
  expect(await eraseAll(world)).toEqual({ payloads: 5, runs: 2 })
  expect(await tablesWith(world, CANARY)).toEqual([])
  await expectVerified(world)
})

test('an erased run is not forked, and nothing is charged for the attempt; it can be run again', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { world, call } = await useEngine(api, tenant)
  const { key } = tenant
  const first = await startTestRun(api, tenant)
  await call(first, 'plan')
  await endRun(world, first)
  const wallet = () => api.ask('GET', `/api/v1/projects/${tenant.projectId}/wallet`, { key })
  const before = (await wallet()).body
  await keep(world, 'hash_only')
  await letPass(world, '1 day')
  await eraseAll(world)
  const refused = await api.ask('POST', `/api/v1/runs/${first}/fork`, { key })
  expect(refused).toMatchObject({
    status: 410,
    body: { code: 'answer_not_stored', remedy: expect.stringContaining('rerun') },
  })
  expect((await wallet()).body).toEqual(before)
  expect((await api.ask('GET', `/api/v1/runs/${first}`, { key })).body['erasedAt']).toEqual(expect.any(String))
  const again = text(await api.make(`/api/v1/runs/${first}/rerun`, { key }), 'id')
  expect((await call(again, 'plan')).kind).toBe('answered')
  expect(await requestsSeen(world.sandbox)).toHaveLength(2)
  await expectVerified(world)
})

test('what a fork uses again is its own: it stays when its source is erased, and goes with the fork', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { world, call } = await useEngine(api, tenant)
  const { key } = tenant
  const first = await startTestRun(api, tenant)
  for (const path of ['plan', 'write']) await call(first, path)
  await endRun(world, first)
  await keep(world, 'hash_only')
  const fork = text(await api.make(`/api/v1/runs/${first}/fork`, { key }), 'id')
  await call(fork, 'plan')
  await letPass(world, '1 day')
  // Its fork is at work, and may still want what was answered to `write`.
  expect(await eraseAll(world)).toEqual({ payloads: 0, runs: 0 })
  expect(await call(fork, 'write')).toMatchObject({ kind: 'answered' })
  await endRun(world, fork)
  expect(await eraseAll(world)).toEqual({ payloads: 4, runs: 1 })
  expect(await call(fork, 'plan')).toMatchObject({ kind: 'answered' })
  await expectVerified(world)
  await letPass(world, '1 day')
  expect(await eraseAll(world)).toEqual({ payloads: 4, runs: 1 })
  expect(await requestsSeen(world.sandbox)).toHaveLength(2)
  await expectVerified(world)
})

test('an answer that another run let be used again is not, once it is erased: the call is made', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const reuse = { maxAgeMs: 1_000_000_000_000 }
  const [one, two, three] = [await world.openRun(DOLLAR), await world.openRun(DOLLAR), await world.openRun(DOLLAR)]
  await executeCall(engine, one.request('a', QUESTION, { reuse }))
  const used = await executeCall(engine, two.request('a', QUESTION, { reuse }))
  await endRun(world, one.runId)
  await keep(world, 'hash_only')
  await letPass(world, '1 day')
  expect(await eraseAll(world)).toEqual({ payloads: 2, runs: 1 })
  expect(await executeCall(engine, two.request('a', QUESTION, { reuse }))).toEqual(used)
  expect(await executeCall(engine, three.request('a', QUESTION, { reuse }))).toMatchObject({ kind: 'answered' })
  expect(await requestsSeen(world.sandbox)).toHaveLength(2)
  await expectVerified(world)
})

test('what a workflow would read of what is erased is a failure in words, and nothing is asked in its place', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { world, call } = await useEngine(api, tenant)
  const source = await startTestRun(api, tenant)
  const idIn = (runId: string) => deriveId(runId, 'tool', 'search/0')
  await putPayload(world.db, world.scope, { id: idIn(source), runId: source, kind: 'tool', body: { value: 1 } })
  const plan = await call(source, 'plan')
  const fork = text(await api.make(`/api/v1/runs/${source}/fork`, { key: tenant.key }), 'id')
  // Its source is held while it is at work: only a hand takes it away.
  await asAdmin(world, (admin) =>
    admin.query('update payload set digest = payload_digest(body), body = null, erased_at = clock_timestamp()'),
  )
  expect(await forkedPayload(world.db, world.scope, { runId: fork, idIn })).toEqual({ isErased: true })
  const messages = [{ role: 'user' as const, parts: ['Read this: ', { ref: idIn(source) }] }]
  await expect(loadContents(world.db, world.scope, messages)).rejects.toMatchObject({ code: 'answer_not_stored' })
  for (const runId of [source, fork]) {
    expect(await call(runId, 'plan')).toMatchObject({ kind: 'failed', reason: 'answer_not_stored' })
  }
  expect(plan.kind).toBe('answered')
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
})

test.each([
  [
    'a body that is gone without its digest',
    `update payload set digest = null where body is null`,
    'without its digest',
  ],
  ['a run that is erased and not over', `update run set finished_at = null where erasing_at is not null`, 'not over'],
  [
    'a text that was put back',
    `update payload set body = '{}', digest = null, erased_at = null where kind = 'answer'`,
    'is left',
  ],
  ['a text that was taken', `update run set erasing_at = null, erased_at = null`, 'its run is not given up'],
])('verify finds %s', async (_what, change, wrong) => {
  const world = await createWorld()
  await finishedRun(world)
  await keep(world, 'hash_only')
  await letPass(world, '1 day')
  await eraseAll(world)
  await expectVerified(world)
  await tamper(world, change)
  const { checks } = await verifyLedger(world.db)
  expect(checks.filter(({ ok }) => !ok).map(({ firstWrong }) => firstWrong)).toEqual([expect.stringContaining(wrong)])
})
