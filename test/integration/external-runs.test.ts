import { startTestRun, text, usd } from '../support/api.ts'
import { routes } from '../support/addresses.ts'
import { useGateway, type TestGateway } from '../support/gateway.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { admitRuns } from '#db/command.ts'
import { newId } from '#db/ids.ts'
import { finishRun } from '#db/run-end.ts'
import { endIfIdle } from '#db/run-idle.ts'
import { parseDecimal } from '#domain/money.ts'
import type OpenAI from 'openai'
import { expect, test } from 'vitest'
import { z } from 'zod'

const QUESTION = '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?'

const opened = z.object({
  run: z.looseObject({ id: z.string() }),
  key: z.object({ id: z.string(), secret: z.string() }),
})

interface Opened {
  readonly runId: string
  readonly secret: string
  readonly client: OpenAI
}

async function open(gateway: TestGateway, change: object = {}): Promise<Opened> {
  const { api, tenant } = gateway
  const envelope = { pockets: [{ balanceClass: 'direct', amount: usd('1') }] }
  const made = opened.parse(await api.make('/api/v1/runs/external', { key: tenant.key, body: { envelope, ...change } }))
  const { secret } = made.key
  return { runId: made.run.id, secret, client: gateway.client(secret) }
}

function ask(client: OpenAI, change: object = {}) {
  const messages = [{ role: 'user' as const, content: QUESTION }]
  return client.chat.completions.create({ model: 'steady', messages, max_tokens: 200, ...change }).withResponse()
}

const failed = (asked: Promise<unknown>): Promise<unknown> =>
  asked.then(
    () => Promise.reject(new Error('it was answered')),
    (error: unknown) => error,
  )

/** As its workflow does once it has seen that the run was told to end. */
async function finish({ api, tenant }: TestGateway, runId: string): Promise<void> {
  const end = { state: 'cancelled', reason: 'cancelled', detail: 'The run was told to stop.' } as const
  await finishRun(api.db, { projectId: tenant.projectId }, { runId, end, output: null })
}

/** Of an answer's headers, in dollars. */
function nanoOf(response: Response, what: 'cost' | 'remaining'): bigint {
  const parsed = parseDecimal(response.headers.get(`x-purser-${what}`)?.replace(' USD', '') ?? '')
  if (!parsed.ok) throw new Error(`${what} is no amount`)
  return parsed.nano
}

async function get({ api, tenant }: TestGateway, path: string) {
  return (await api.ask('GET', `/api/v1/runs/${path}`, { key: tenant.key })).body
}

test('a run is opened with a key, its calls are paid from its envelope, and ending it sends the rest home', async () => {
  const gateway = await useGateway()
  const { runId, secret, client } = await open(gateway, { name: 'my agent', limits: { seconds: 600 } })
  expect(secret).toMatch(/^purser_rk_[\w-]{43}$/)
  expect(await get(gateway, runId)).toMatchObject({
    agent: 'external',
    model: '*',
    state: 'running',
    onExhausted: 'refuse',
    input: { name: 'my agent', idleSeconds: 3_600 },
    deadlineAt: expect.any(String),
  })
  const { data, response } = await ask(client)
  expect(data.choices[0]?.message.content).toContain('1711')
  const cost = nanoOf(response, 'cost')
  expect(nanoOf(response, 'remaining')).toBe(1_000_000_000n - cost)
  const again = { headers: { 'Idempotency-Key': 'once' } }
  const body = { model: 'steady', messages: [{ role: 'user' as const, content: QUESTION }], max_tokens: 100 }
  const first = await client.chat.completions.create(body, again)
  expect(await client.chat.completions.create(body, again)).toMatchObject({ id: first.id })
  const report = await get(gateway, `${runId}/report`)
  expect(report).toMatchObject({
    agent: 'external',
    calls: [{ path: expect.stringMatching(/^v1\//) }, { path: 'v1/once' }],
  })
  expect(await gateway.sandbox.readLog()).toHaveLength(2)

  const { api, tenant } = gateway
  const end = await api.ask('POST', `/api/v1/runs/${runId}/end`, { key: tenant.key })
  expect(end).toMatchObject({ status: 202, body: { envelope: { gate: 'closing' } } })
  expect(await failed(ask(client))).toMatchObject({ status: 403, code: 'envelope_closed' })
  expect((await api.ask('POST', `/api/v1/runs/${runId}/end`, { key: tenant.key })).status).toBe(202)
  await finish(gateway, runId)
  expect(await get(gateway, runId)).toMatchObject({
    state: 'completed',
    reason: 'finished',
    detail: 'Ended by its owner.',
  })
  const over = gateway.client(secret)
  await expect.poll(() => failed(over.models.list())).toMatchObject({ status: 403, code: 'envelope_closed' })
  const late = await api.ask('POST', `/api/v1/runs/${runId}/end`, { key: tenant.key })
  expect(late).toMatchObject({ status: 409, body: { code: 'run_finished' } })
  const wallet = await api.ask('GET', `/api/v1/projects/${tenant.projectId}/wallet`, { key: tenant.key })
  expect(JSON.stringify(wallet.body)).toMatch(/"9\.99\d+"/)
  await expectVerified(api)
})

test('its key reads its own run and nothing else', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const { runId, secret } = await open(gateway)
  const other = await open(gateway)
  const reads = [runId, `${runId}/report`, `${runId}/calls`, `${runId}/ledger`, `${runId}/events?format=json`]
  for (const path of reads) {
    expect((await api.ask('GET', `/api/v1/runs/${path}`, { key: secret })).status, path).toBe(200)
    const foreign = await api.ask('GET', `/api/v1/runs/${path.replace(runId, other.runId)}`, { key: secret })
    expect(foreign.status, path).toBe(404)
  }
  const id = newId(Date.now())
  const ids = { key: id, wallet: id, account: id, month: '2026-11', deposit: id, call: id, attempt: '1', corpus: id }
  const more = {
    passage: id,
    organisation: id,
    limit: id,
    dataset: id,
    schedule: id,
    webhook: id,
    delivery: id,
    depositRequest: id,
    project: tenant.projectId,
    run: runId,
  }
  for (const [method, path, body] of [
    ...routes.project({ ...ids, ...more }),
    ...routes.operator({ ...ids, ...more }),
  ]) {
    if (method === 'GET' && reads.includes(path.replace('/runs/', ''))) continue
    if (method === 'GET' && path.startsWith(`/runs/${runId}/events`)) continue
    const answer = await api.ask(method, `/api/v1${path}`, { key: secret, body })
    expect([method, path, answer.status]).toEqual([method, path, 403])
  }
  const again = await api.ask('POST', '/api/v1/runs/external', { key: secret, body: {} })
  expect(again.status).toBe(403)
  expect(
    JSON.stringify(await api.ask('GET', `/api/v1/projects/${tenant.projectId}/keys`, { key: api.operatorKey })),
  ).not.toContain('purser_rk_')
})

test('when its money ends its calls are refused with 402, are told as an event, and go on after a top-up', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const envelope = { pockets: [{ balanceClass: 'direct', amount: usd('0.0001') }] }
  const { runId, client } = await open(gateway, { envelope })
  expect(await failed(ask(client))).toMatchObject({ status: 402, code: 'insufficient_quota' })
  expect(await gateway.sandbox.readLog()).toHaveLength(0)
  const { events } = z
    .object({ events: z.array(z.looseObject({ kind: z.string() })) })
    .parse(await get(gateway, `${runId}/events?format=json`))
  expect(events.filter(({ kind }) => kind === 'run.exhausted')).toMatchObject([
    { data: { limit: 'direct pocket', remaining: '0.000100', unit: 'USD' } },
  ])
  expect(await get(gateway, runId)).toMatchObject({ state: 'running', envelope: { gate: 'open' } })
  await api.make(`/api/v1/runs/${runId}/top-up`, {
    key: tenant.key,
    body: { pockets: [{ balanceClass: 'direct', amount: usd('1') }] },
  })
  expect((await ask(client)).data.choices).toHaveLength(1)
  await expectVerified(api)
})

test('a pause refuses its calls until it is resumed, and its constraints bind them', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const { runId, client } = await open(gateway, { constraints: { models: ['steady'] } })
  await api.make(`/api/v1/runs/${runId}/pause`, { key: tenant.key })
  expect(await failed(ask(client))).toMatchObject({ status: 409, code: 'envelope_frozen' })
  await api.make(`/api/v1/runs/${runId}/resume`, { key: tenant.key })
  expect((await ask(client)).response.status).toBe(200)
  expect(await failed(ask(client, { model: 'research' }))).toMatchObject({ status: 404, code: 'model_not_found' })
  expect((await client.models.list()).data.map((each) => each.id)).toEqual(['steady'])
})

test('a repeated opening is the same run without its secret; what no route can be paid from is refused', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const body = { envelope: { pockets: [{ balanceClass: 'direct', amount: usd('1') }] } }
  const headers = { 'idempotency-key': 'one' }
  const first = await api.ask('POST', '/api/v1/runs/external', { key: tenant.key, body, headers })
  const second = await api.ask('POST', '/api/v1/runs/external', { key: tenant.key, body, headers })
  const { key, run } = opened.parse(first.body)
  expect(second).toMatchObject({ status: 201, body: { run: { id: run.id }, remedy: expect.stringContaining('once') } })
  expect(JSON.stringify(second.body)).not.toContain(key.secret)
  const rows = await api.db.selectFrom('api_key').selectAll().where('run_id', '=', run.id).execute()
  expect(rows).toHaveLength(1)
  expect(JSON.stringify(rows)).not.toContain(key.secret)

  for (const [change, code] of [
    [{ model: 'nothing' }, 'unknown_model'],
    [{ constraints: { models: ['nothing'] } }, 'no_route'],
    [{ envelope: { pockets: [{ balanceClass: 'direct', amount: usd('99') }] } }, 'wallet_short'],
    [{ onExhausted: 'pause' }, 'invalid_request'],
  ] as const) {
    const refused = await api.ask('POST', '/api/v1/runs/external', { key: tenant.key, body: { ...body, ...change } })
    expect(refused.body).toMatchObject({ code })
  }
})

test('nothing starts one by the name of its agent or repeats it, and no other run is ended so', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const agent = { agent: 'external', model: 'steady', input: {}, onExhausted: 'pause' }
  const body = { ...agent, envelope: { pockets: [{ balanceClass: 'direct', amount: usd('1') }] } }
  expect((await api.ask('POST', '/api/v1/runs', { key: tenant.key, body })).body).toMatchObject({
    code: 'unknown_agent',
  })
  expect(JSON.stringify(await api.ask('GET', '/api/v1/agents', { key: tenant.key }))).not.toContain('"external"')
  const { runId } = await open(gateway)
  for (const action of ['rerun', 'fork']) {
    const again = await api.ask('POST', `/api/v1/runs/${runId}/${action}`, { key: tenant.key })
    expect(again).toMatchObject({ status: 409, body: { code: 'is_external' } })
  }
  const plain = await startTestRun(api, tenant)
  const ended = await api.ask('POST', `/api/v1/runs/${plain}/end`, { key: tenant.key })
  expect(ended).toMatchObject({ status: 409, body: { code: 'not_external' } })
})

test('it takes none of the places of its project, and waits for none', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  await api.ask('PATCH', `/api/v1/projects/${tenant.projectId}`, { key: api.operatorKey, body: { maxRunningRuns: 1 } })
  await open(gateway)
  await startTestRun(api, tenant)
  await startTestRun(api, tenant)
  expect(await admitRuns(api.db, 10)).toBe(1)
  const { runId } = await open(gateway)
  expect(await get(gateway, runId)).toMatchObject({ state: 'running', queue: null })
})

test('it is idle only when nothing was asked, is in flight or has happened for so long, and it is not paused', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const scope = { projectId: tenant.projectId }
  const { runId, client } = await open(gateway)
  const idle = (idleMs: number) => endIfIdle(api.db, scope, { runId, idleMs })
  const fresh = await idle(60_000)
  expect(fresh).toMatchObject({ isOver: false })
  expect(fresh.leftMs).toBeLessThanOrEqual(60_000)
  await gateway.sandbox.control('PUT', '/faults/sandbox-steady', { delayFirstByteMs: 60_000 })
  const asking = failed(ask(client))
  await expect.poll(async () => (await api.db.selectFrom('attempt').select('state').execute()).length).toBe(1)
  expect(await idle(1)).toEqual({ isOver: false, leftMs: 1 })
  await api.make(`/api/v1/runs/${runId}/pause`, { key: tenant.key })
  expect(await idle(1)).toEqual({ isOver: false, leftMs: 1 })
  await api.make(`/api/v1/runs/${runId}/end`, { key: tenant.key })
  expect(await asking).toMatchObject({ status: 403, code: 'envelope_closed' })
  expect(await idle(1)).toEqual({ isOver: false, leftMs: 1 })

  const silent = await open(gateway)
  const over = () => endIfIdle(api.db, scope, { runId: silent.runId, idleMs: 1 })
  await expect.poll(over).toEqual({ isOver: true, leftMs: 0 })
  expect(await over()).toEqual({ isOver: true, leftMs: 0 })
  expect(await failed(ask(silent.client))).toMatchObject({ status: 403, code: 'envelope_closed' })
  expect(text(await get(gateway, silent.runId), 'reason')).toBe('idle')
})

test('its key can be revoked by itself, and the run goes on without it until it is ended', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const { runId, client } = await open(gateway)
  await ask(client)
  const { id } = await api.db.selectFrom('api_key').select('id').where('run_id', '=', runId).executeTakeFirstOrThrow()
  expect((await api.ask('DELETE', `/api/v1/keys/${id}`, { key: api.operatorKey })).status).toBe(204)
  await expect.poll(() => failed(client.models.list())).toMatchObject({ status: 401, code: 'invalid_api_key' })
  expect(await get(gateway, runId)).toMatchObject({ state: 'running', envelope: { gate: 'open' } })
  await api.make(`/api/v1/runs/${runId}/end`, { key: tenant.key })
  await finish(gateway, runId)
  await expectVerified(api)
})

test('of many calls at once none gets more than the envelope has, and the rest is refused', async () => {
  const gateway = await useGateway()
  const { runId, client } = await open(gateway, {
    envelope: { pockets: [{ balanceClass: 'direct', amount: usd('0.0008') }] },
  })
  const outcomes = await Promise.all(
    Array.from({ length: 40 }, () =>
      ask(client).then(
        () => 200,
        (error: unknown) => z.object({ status: z.int() }).parse(error).status,
      ),
    ),
  )
  expect(new Set(outcomes)).toEqual(new Set([200, 402]))
  const answered = outcomes.filter((status) => status === 200).length
  expect(await gateway.sandbox.readLog()).toHaveLength(answered)
  await gateway.api.make(`/api/v1/runs/${runId}/end`, { key: gateway.tenant.key })
  await finish(gateway, runId)
  expect(await get(gateway, runId)).toMatchObject({ state: 'completed' })
  await expectVerified(gateway.api)
})
