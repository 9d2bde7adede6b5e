import { beginRun } from '#db/run-begin.ts'
import { beginClosing, finishRun } from '#db/run-end.ts'
import { readReport } from '#db/report.ts'
import { runFacts } from '#db/run.ts'
import { describe, expect, test } from 'vitest'
import { makeTenant, runBody, startTestRun, usd, useApi } from '#test/support/api.ts'
import { useEngine } from '#test/support/api-engine.ts'
import { expectVerified } from '#test/support/open-attempt.ts'
import { requestsSeen } from '#test/support/world.ts'

describe('limits of a run', () => {
  test('its tokens, its calls and those of a step are limits from its start on', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const { world, call } = await useEngine(api, tenant)
    const steps = [{ step: 'read', calls: 1, money: usd('0.5') }]
    const runId = await startTestRun(api, tenant, { limits: { tokens: 100_000, calls: 3, steps } })
    const { body } = await api.ask('GET', `/api/v1/limits?subjectId=${runId}`, { key: tenant.key })
    expect(body['limits']).toHaveLength(4)
    for (const limit of [
      { scope: 'step', step: 'read', measure: 'calls', cap: 1, period: 'life' },
      { scope: 'step', step: 'read', measure: 'money', cap: usd('0.500000') },
      { scope: 'run', subjectId: runId, measure: 'calls', cap: 3 },
      { scope: 'run', subjectId: runId, measure: 'tokens', cap: 100_000 },
    ])
      expect(body['limits']).toContainEqual(expect.objectContaining(limit))
    expect((await call(runId, 'read/0')).kind).toBe('answered')
    const second = await call(runId, 'read/1')
    expect(second).toMatchObject({
      kind: 'exhausted',
      refusal: { limit: 'step limit', measure: 'calls', free: 0n },
    })
    expect((await call(runId, 'write')).kind).toBe('answered')
    expect((await call(runId, 'check')).kind).toBe('answered')
    expect(await call(runId, 'more')).toMatchObject({ kind: 'exhausted', refusal: { measure: 'calls' } })
    expect(await requestsSeen(world.sandbox)).toHaveLength(3)
    await expectVerified(world)
  })

  test('a prompt that is longer than a call may have is refused before anything is held', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const { world, call } = await useEngine(api, tenant)
    const runId = await startTestRun(api, tenant, { limits: { inputTokensPerCall: 150 } })
    expect((await call(runId, 'short')).kind).toBe('answered')
    const content = 'word '.repeat(200)
    const long = await call(runId, 'long', { body: { messages: [{ role: 'user', content }], maxTokens: 200 } })
    expect(long).toMatchObject({
      kind: 'failed',
      reason: 'prompt_too_large',
      detail: expect.stringMatching(/^the prompt may have \d+ tokens, and inputTokensPerCall allows 150$/),
    })
    expect(await requestsSeen(world.sandbox)).toHaveLength(1)
    const report = await readReport(world.db, world.scope, runId)
    expect(report?.calls.find(({ path }) => path === 'long')).toMatchObject({
      stopReason: 'prompt_too_large',
      attempts: [],
    })
  })
})

describe('limits that leave too little', () => {
  test('refuse a run at once, with the limit, what is free, and when it is back', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const { key } = tenant
    const set = (body: object) => api.make('/api/v1/limits', { key: api.operatorKey, body })
    const start = (change: object = {}) => api.ask('POST', '/api/v1/runs', { key, body: runBody({ ...change }) })
    const subjectId = tenant.projectId
    const life = await set({ scope: 'project', subjectId, measure: 'money', period: 'life', cap: usd('0.4') })
    expect(await start()).toMatchObject({
      status: 402,
      body: {
        code: 'limit_short',
        limitId: life['id'],
        free: usd('0.400000'),
        needed: usd('1.000000'),
        resetsAt: null,
        remedy: expect.stringContaining('raised'),
      },
    })
    const small = { envelope: { pockets: [{ balanceClass: 'direct', amount: usd('0.4') }] } }
    expect((await start(small)).status).toBe(201)
    // A window's cap may be less than an envelope, but not nothing.
    const day = await set({ scope: 'key', subjectId: tenant.keyId, measure: 'calls', period: 'day', cap: 0 })
    expect((await start(small)).body).toMatchObject({
      code: 'limit_short',
      limitId: day['id'],
      free: 0,
      resetsAt: expect.any(String),
    })
    await api.ask('DELETE', `/api/v1/limits/${String(day['id'])}`, { key: api.operatorKey })
    await set({ scope: 'project', subjectId, measure: 'calls', period: 'minute', cap: 0 })
    await set({ scope: 'project', subjectId, measure: 'money', period: 'day', cap: { amount: '0', currency: 'EUR' } })
    expect((await start(small)).status).toBe(201)
    const { length } = await api.db.selectFrom('run').select('id').execute()
    expect(length).toBe(2)
  })
})

describe('the wrap-up reserve', () => {
  test('is carved with the funding, rounded up, pays when the run is stopped, and goes home', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const { world, call } = await useEngine(api, tenant)
    const pockets = [
      { balanceClass: 'direct', amount: usd('0.1') },
      { balanceClass: 'credit', amount: usd('0.000000101') },
    ]
    const runId = await startTestRun(api, tenant, { envelope: { pockets, wrapUpPercent: 10 } })
    const facts = await runFacts(api.db, runId)
    const envelopeId = facts.wrapUpEnvelopeId
    if (envelopeId === undefined) throw new Error('no reserve')
    const reserve = await api.db
      .selectFrom('account')
      .select(['balance_class', 'posted_credit'])
      .where('envelope_id', '=', envelopeId)
      .orderBy('balance_class')
      .execute()
    expect(reserve).toEqual([
      { balance_class: 'credit', posted_credit: 11n },
      { balance_class: 'direct', posted_credit: 10_000_000n },
    ])
    expect(await beginRun(api.db, world.scope, runId)).toMatchObject({ hasWrapUp: true })
    await api.make(`/api/v1/runs/${runId}/cancel`, { key: tenant.key, body: { mode: 'wrap_up' } })
    expect(await call(runId, 'work')).toMatchObject({ kind: 'gate', gate: 'frozen' })
    const why = { reason: 'cancelled', detail: 'Told to.' } as const
    expect(await beginClosing(api.db, world.scope, { runId, ...why, from: 'any', wrapUp: true })).toBe('wrapping_up')
    expect((await call(runId, 'deliver', { envelopeId })).kind).toBe('answered')
    // Asked twice, it goes on delivering.
    await api.make(`/api/v1/runs/${runId}/cancel`, { key: tenant.key, body: { mode: 'wrap_up' } })
    expect((await call(runId, 'deliver more', { envelopeId })).kind).toBe('answered')
    const end = { state: 'partial', ...why } as const
    expect(await finishRun(api.db, world.scope, { runId, end, output: null })).toEqual({ finished: true })
    await expectVerified(world)
  })
})
