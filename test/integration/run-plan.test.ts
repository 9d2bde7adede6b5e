import { finishRun } from '#db/run-end.ts'
import { expect, test } from 'vitest'
import { makeTenant, runBody, startTestRun, text, usd, useApi, type Tenant, type TestApi } from '#test/support/api.ts'
import { useEngine } from '#test/support/api-engine.ts'

async function corpusOf(api: TestApi, { key }: Tenant): Promise<string> {
  return text(await api.make('/api/v1/corpora', { key, body: { name: 'one' } }), 'id')
}

test('a dry run answers routes, steps, an estimate and whether it is covered, and stores nothing', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { key } = tenant
  const input = { question: 'When was the mill built?', corpusId: await corpusOf(api, tenant) }
  const dry = (change: object) =>
    api.ask('POST', '/api/v1/runs', {
      key,
      headers: { 'idempotency-key': 'dry' },
      body: { ...runBody({ agent: 'research', model: 'research', input }), dryRun: true, ...change },
    })
  const rows = async () => (await api.db.selectFrom('envelope').select('id').execute()).length
  const { status, body } = await dry({})
  expect(status).toBe(200)
  expect(body).toMatchObject({
    agent: 'research',
    input: { breadth: 4 },
    routes: [
      { route: 'busy', skipped: null, price: { inputPerMillionTokens: usd('0.150000') } },
      { route: 'steady', skipped: null },
      { route: 'economy', skipped: 'no_pocket' },
    ],
    steps: [
      { path: 'plan', calls: { least: 1, most: 1 }, outputTokens: { most: 400 } },
      { path: 'read', calls: { least: 0, most: 4 } },
      { path: 'write', model: 'research', calls: { least: 0, most: 1 } },
    ],
    estimate: [{ balanceClass: 'direct', currency: 'USD' }],
    history: null,
    coversHigh: true,
  })
  expect(
    (await dry({ envelope: { pockets: [{ balanceClass: 'direct', amount: usd('0.00001') }] } })).body['coversHigh'],
  ).toBe(false)
  // What would refuse the run refuses the plan, what only money shows as well.
  const dear = { envelope: { pockets: [{ balanceClass: 'direct', amount: usd('11') }] } }
  expect((await dry(dear)).body['code']).toBe('wallet_short')
  expect((await dry({ model: 'unpriced' })).body['code']).toBe('no_price')
  expect((await dry({ agent: 'echo', input: { text: 'x' } })).body).toMatchObject({
    steps: null,
    estimate: [],
    coversHigh: null,
  })
  expect(await rows()).toBe(0)
  expect(await api.db.selectFrom('run').select('id').execute()).toEqual([])
  expect(await api.db.selectFrom('idempotency').select('key').execute()).toHaveLength(0)
  expect(api.pokes.count).toBe(0)
})

test('what the last completed runs of an agent and model cost stands in the plan, once there are five', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { call } = await useEngine(api, tenant)
  const scope = { projectId: tenant.projectId }
  const history = async () =>
    (await api.ask('POST', '/api/v1/runs', { key: tenant.key, body: runBody({ dryRun: true }) })).body['history']
  for (let count = 1; count <= 5; count += 1) {
    expect(await history()).toBeNull()
    const runId = await startTestRun(api, tenant)
    await call(runId, `ask/${count}`)
    await api.db.updateTable('run').set({ state: 'running', started_at: new Date() }).where('id', '=', runId).execute()
    const end = { state: 'completed', reason: 'finished', detail: 'Done.' } as const
    await finishRun(api.db, scope, { runId, end, output: null })
  }
  expect(await history()).toMatchObject({ runs: 5, costs: [{ balanceClass: 'direct', currency: 'USD' }] })
  expect(await history()).not.toMatchObject({ costs: [{ p10: usd('0.000000') }] })
})
