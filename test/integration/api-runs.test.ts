import { newId } from '#db/ids.ts'
import { closeEnvelope, setGate } from '#db/ledger.ts'
import { finishRun } from '#db/run-end.ts'
import { pauseForMoney } from '#db/run-pause.ts'
import { describe, expect, test } from 'vitest'
import { makeTenant, runBody, startTestRun, text, usd, useApi, type Tenant, type TestApi } from '#test/support/api.ts'

async function commandsOf(api: TestApi, runId: string) {
  const rows = await api.db.selectFrom('command').select('kind').where('run_id', '=', runId).orderBy('id').execute()
  return rows.map((row) => row.kind)
}

async function availableDirect(api: TestApi, tenant: Tenant) {
  const { body } = await api.ask('GET', `/api/v1/projects/${tenant.projectId}/wallet`, { key: tenant.key })
  return body['balances']
}

async function finish(api: TestApi, tenant: Tenant, runId: string) {
  const end = { state: 'completed', reason: 'finished', detail: 'Done.' } as const
  const scope = { projectId: tenant.projectId }
  await api.db.updateTable('run').set({ state: 'running', started_at: new Date() }).where('id', '=', runId).execute()
  expect(await finishRun(api.db, scope, { runId, end, output: { text: 'hello' } })).toEqual({ finished: true })
}

describe('starting', () => {
  test('a run sets its money aside, keeps its input with defaults, and waits for its workflow', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const pockets = [
      { balanceClass: 'credit', amount: usd('0.25') },
      { balanceClass: 'direct', amount: usd('1') },
    ]
    const body = runBody({ envelope: { pockets }, mayRepeat: 2, pauseDeadlineSeconds: 60 })
    const run = await api.make('/api/v1/runs', { key: tenant.key, body })
    expect(run).toMatchObject({
      state: 'queued',
      input: { text: 'hello', times: 1 },
      onExhausted: 'pause',
      mayRepeat: 2,
      pauseDeadlineSeconds: 60,
      envelope: {
        gate: 'open',
        pockets: [{ funded: usd('1.000000'), free: usd('1.000000') }, { free: usd('0.250000') }],
      },
      output: null,
    })
    expect(await availableDirect(api, tenant)).toMatchObject([
      { available: usd('9.000000'), inEnvelopes: usd('1.000000') },
      { available: usd('9.750000'), inEnvelopes: usd('0.250000') },
    ])
    const id = text(run, 'id')
    expect(await commandsOf(api, id)).toEqual(['start'])
    expect(api.pokes.count).toBe(1)
    expect((await api.ask('GET', `/api/v1/runs/${id}`, { key: tenant.key })).body).toEqual(run)
    const report = await api.ask('GET', `/api/v1/runs/${id}/report`, { key: api.operatorKey })
    expect(report.body).toMatchObject({ runId: id, counts: { calls: 0 } })
    const events = await api.ask('GET', `/api/v1/runs/${id}/events?format=json`, { key: tenant.key })
    expect(events.body).toMatchObject({ events: [{ kind: 'run.queued', data: { agent: 'echo', pockets } }] })
  })

  test('what would stop a run later refuses it at once, and nothing is charged', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const corpusId = newId(Date.now())
    for (const [change, status, code] of [
      [{ agent: 'nobody' }, 422, 'unknown_agent'],
      [{ model: 'nothing' }, 422, 'unknown_model'],
      [{ model: 'unpriced' }, 422, 'no_price'],
      [{ envelope: { pockets: [{ balanceClass: 'credit', amount: usd('1') }] } }, 422, 'no_route'],
      [
        { envelope: { pockets: [{ balanceClass: 'direct', amount: { amount: '1', currency: 'EUR' } }] } },
        422,
        'no_route',
      ],
      [{ envelope: { pockets: [{ balanceClass: 'direct', amount: usd('0') }] } }, 400, 'invalid_amount'],
      [{ envelope: { pockets: [{ balanceClass: 'direct', amount: usd('0.0000000001') }] } }, 400, 'invalid_amount'],
      [{ envelope: { pockets: [] } }, 400, 'invalid_request'],
      [{ envelope: { pockets: [{ balanceClass: 'direct', amount: usd('10.000000001') }] } }, 402, 'wallet_short'],
      [{ input: { text: 'x', corpusId } }, 404, 'not_found'],
      [{ onExhausted: undefined }, 400, 'invalid_request'],
      [{ mayRepeat: -1 }, 400, 'invalid_request'],
      [{ pauseDeadlineSeconds: 604_801 }, 400, 'invalid_request'],
      [{ onExhausted: 'downgrade' }, 400, 'invalid_request'],
      [{ onExhausted: 'pause', downgrade: { model: 'nothing', then: 'cancel' } }, 400, 'invalid_request'],
      [{ onExhausted: 'downgrade', downgrade: { then: 'cancel' } }, 400, 'invalid_request'],
      [{ onExhausted: 'downgrade', downgrade: { model: 'nothing', then: 'cancel' } }, 422, 'unknown_model'],
      [
        { onExhausted: 'downgrade', downgrade: { constraints: { balanceClasses: ['credit'] }, then: 'cancel' } },
        422,
        'route_not_allowed',
      ],
      [{ thresholds: [50, 50] }, 400, 'invalid_request'],
      [{ limits: { seconds: 0 } }, 400, 'invalid_request'],
      [{ limits: { steps: [{ step: '../x', calls: 1 }] } }, 400, 'invalid_request'],
      [{ priority: 6 }, 400, 'invalid_request'],
      [{ colour: 'red' }, 400, 'invalid_request'],
    ] as const) {
      const answer = await api.ask('POST', '/api/v1/runs', { key: tenant.key, body: runBody(change) })
      expect([change, answer.status, answer.body['code']]).toEqual([change, status, code])
    }
    expect(await api.db.selectFrom('run').select('id').execute()).toEqual([])
    expect(await api.db.selectFrom('envelope').select('id').execute()).toEqual([])
    expect(await availableDirect(api, tenant)).toMatchObject([
      { available: usd('10.000000') },
      { available: usd('10.000000') },
    ])
  })

  test('a refusal names what is wrong: every fault of the input, the route, what is needed and what is free', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const refuse = async (change: object) =>
      (await api.ask('POST', '/api/v1/runs', { key: tenant.key, body: runBody({ ...change }) })).body
    const input = await refuse({ input: { times: 9, corpusId: 'x', loud: true } })
    expect(input['errors']).toMatchObject([
      { path: 'input.text' },
      { path: 'input.times' },
      { path: 'input.corpusId' },
      { path: 'input.loud', message: 'is not known here' },
    ])
    expect(await refuse({ model: 'unpriced' })).toMatchObject({
      route: 'small',
      detail: expect.stringContaining('small'),
    })
    const pockets = [{ balanceClass: 'direct', amount: usd('12') }]
    expect(await refuse({ envelope: { pockets } })).toMatchObject({ needed: usd('12.000000'), free: usd('10.000000') })
    const twice = [
      { balanceClass: 'direct', amount: usd('1') },
      { balanceClass: 'direct', amount: usd('1') },
    ]
    expect(await refuse({ envelope: { pockets: twice } })).toMatchObject({
      detail: expect.stringContaining('direct USD stands twice'),
    })
  })

  test('a project without a wallet is told so', async () => {
    const api = await useApi()
    const key = api.operatorKey
    const { id } = await api.make('/api/v1/projects', { key, body: { name: 'poor' } })
    const made = await api.make(`/api/v1/projects/${String(id)}/keys`, { key, body: { name: 'first' } })
    const answer = await api.ask('POST', '/api/v1/runs', { key: text(made, 'secret'), body: runBody() })
    expect(answer).toMatchObject({ status: 402, body: { code: 'wallet_short', detail: 'The project has no wallet.' } })
  })
})

describe('topping up', () => {
  test('money goes into the envelope, and a run that is paused for money goes on', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const runId = await startTestRun(api, tenant)
    const scope = { projectId: tenant.projectId }
    await api.db.updateTable('run').set({ state: 'running', started_at: new Date() }).where('id', '=', runId).execute()
    const stop = {
      refusalId: newId(Date.now()),
      limit: 'pocket',
      needed: '2.000000',
      free: '1.000000',
      currency: 'USD',
    }
    expect(await pauseForMoney(api.db, scope, { runId, stop })).toBe('paused')
    const paused = await api.ask('GET', `/api/v1/runs/${runId}`, { key: tenant.key })
    expect(paused.body).toMatchObject({
      state: 'paused',
      reason: 'money_exhausted',
      stop: { limit: 'pocket', needed: usd('2.000000'), free: usd('1.000000') },
      envelope: { gate: 'frozen' },
    })
    const pockets = [{ balanceClass: 'direct', amount: usd('1.5') }]
    const answer = await api.ask('POST', `/api/v1/runs/${runId}/top-up`, { key: tenant.key, body: { pockets } })
    expect(answer.status).toBe(202)
    expect(answer.body).toMatchObject({
      state: 'running',
      reason: null,
      stop: null,
      envelope: { gate: 'open', pockets: [{ funded: usd('2.500000'), free: usd('2.500000') }] },
    })
    expect(await commandsOf(api, runId)).toEqual(['start', 'top_up'])
    const events = await api.ask('GET', `/api/v1/runs/${runId}/events?format=json`, { key: tenant.key })
    expect(events.body).toMatchObject({
      events: [
        { kind: 'run.queued' },
        { kind: 'run.paused' },
        { kind: 'run.topped_up', data: { pockets } },
        { kind: 'run.running' },
      ],
    })
    const short = [{ balanceClass: 'direct', amount: usd('100') }]
    const refused = await api.ask('POST', `/api/v1/runs/${runId}/top-up`, { key: tenant.key, body: { pockets: short } })
    expect([refused.status, refused.body['code']]).toEqual([402, 'wallet_short'])
    expect(await commandsOf(api, runId)).toEqual(['start', 'top_up'])
  })

  test('a run that has ended takes no money and no cancel, and shows where its money went', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const runId = await startTestRun(api, tenant)
    await finish(api, tenant, runId)
    const pockets = [{ balanceClass: 'direct', amount: usd('1') }]
    for (const [path, body] of [
      ['top-up', { pockets }],
      ['cancel', {}],
    ] as const) {
      const answer = await api.ask('POST', `/api/v1/runs/${runId}/${path}`, { key: tenant.key, body })
      expect([path, answer.status, answer.body['code']]).toEqual([path, 409, 'run_finished'])
    }
    const run = await api.ask('GET', `/api/v1/runs/${runId}`, { key: tenant.key })
    expect(run.body).toMatchObject({
      state: 'completed',
      output: { text: 'hello' },
      envelope: {
        gate: 'closed',
        pockets: [{ returned: usd('1.000000'), free: usd('0.000000'), spent: usd('0.000000') }],
      },
    })
    const ledger = await api.ask('GET', `/api/v1/runs/${runId}/ledger?limit=1`, { key: tenant.key })
    expect(ledger.body).toMatchObject({
      transfers: [{ code: 'top_up', credit: { kind: 'pocket', balanceClass: 'direct' } }],
    })
    const cursor = text(ledger.body, 'nextCursor')
    const rest = await api.ask('GET', `/api/v1/runs/${runId}/ledger?cursor=${cursor}`, { key: tenant.key })
    expect(rest.body).toMatchObject({
      transfers: [{ code: 'return', balanceAfter: usd('0.000000') }],
      nextCursor: null,
    })
  })
})

describe('cancelling', () => {
  test('closes the gate in the commit of the command, once', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const runId = await startTestRun(api, tenant)
    const path = `/api/v1/runs/${runId}/cancel`
    const answer = await api.ask('POST', path, { key: tenant.key, body: { reason: 'Not needed.' } })
    expect(answer.status).toBe(202)
    expect(answer.body).toMatchObject({ reason: 'cancelled', detail: 'Not needed.', envelope: { gate: 'closing' } })
    expect((await api.ask('POST', path, { key: tenant.key })).status).toBe(202)
    expect(await commandsOf(api, runId)).toEqual(['start', 'cancel'])
    const pockets = [{ balanceClass: 'direct', amount: usd('1') }]
    const late = await api.ask('POST', `/api/v1/runs/${runId}/top-up`, { key: tenant.key, body: { pockets } })
    expect([late.status, late.body['code']]).toEqual([409, 'run_finished'])
  })

  test('ten at once are one', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const runId = await startTestRun(api, tenant)
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => api.ask('POST', `/api/v1/runs/${runId}/cancel`, { key: tenant.key, body: {} })),
    )
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 10 }, () => 202))
    expect(await commandsOf(api, runId)).toEqual(['start', 'cancel'])
  })

  test('money keeps its sum while runs are topped up and finished at the same time', async () => {
    const api = await useApi()
    const tenant = await makeTenant(api)
    const scope = { projectId: tenant.projectId }
    const runIds = await Promise.all(Array.from({ length: 6 }, () => startTestRun(api, tenant)))
    await api.db.updateTable('run').set({ state: 'running', started_at: new Date() }).execute()
    const pockets = [{ balanceClass: 'direct', amount: usd('0.1') }]
    const statuses = await Promise.all(
      runIds.flatMap((runId) => [
        api
          .ask('POST', `/api/v1/runs/${runId}/top-up`, { key: tenant.key, body: { pockets } })
          .then(({ status }) => status),
        endLikeAWorker(api, scope, runId),
      ]),
    )
    for (const status of statuses) expect([202, 409, 'closed']).toContain(status)
    expect(await availableDirect(api, tenant)).toMatchObject([
      { available: usd('10.000000'), inEnvelopes: usd('0.000000') },
      {},
    ])
  })
})

async function endLikeAWorker(api: TestApi, scope: { readonly projectId: string }, runId: string): Promise<string> {
  const run = await api.db.selectFrom('run').select('envelope_id').where('id', '=', runId).executeTakeFirstOrThrow()
  const envelope = { envelopeId: run.envelope_id, reason: 'finished' }
  await setGate(api.db, scope, { ...envelope, gate: 'closing' })
  return closeEnvelope(api.db, scope, envelope)
}

test('runs are listed newest first, by state, page by page', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const ids: string[] = []
  for (let count = 0; count < 3; count += 1) ids.unshift(await startTestRun(api, tenant))
  await finish(api, tenant, ids[0] ?? '')
  const list = async (query: string, key = tenant.key) => (await api.ask('GET', `/api/v1/runs?${query}`, { key })).body
  const first = await list('limit=2')
  expect(first).toMatchObject({ runs: [{ id: ids[0] }, { id: ids[1] }] })
  expect(await list(`limit=2&cursor=${text(first, 'nextCursor')}`)).toMatchObject({
    runs: [{ id: ids[2] }],
    nextCursor: null,
  })
  expect(await list('state=queued')).toMatchObject({ runs: [{ id: ids[1] }, { id: ids[2] }] })
  expect(await list(`projectId=${tenant.projectId}`, api.operatorKey)).toMatchObject({ runs: [{}, {}, {}] })
  expect(await list('', api.operatorKey)).toMatchObject({ status: 400, errors: [{ path: 'query.projectId' }] })
})
