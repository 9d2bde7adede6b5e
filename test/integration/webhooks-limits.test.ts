import { startWebhookSender } from '#api/webhook-sender.ts'
import { formatNano } from '#domain/money.ts'
import { fanOut } from '#db/webhook-fan-out.ts'
import { expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { testSecrets } from '../support/api-deps.ts'
import { makeKey } from '../support/api-keys.ts'
import { makeTenant, text, usd, type TestApi, type Tenant } from '../support/api.ts'
import { askChat, useGatewayStage } from '../support/gateway-process.ts'
import { useGateway, type TestGateway } from '../support/gateway.ts'
import { pollUntil } from '../support/poll.ts'
import { sendJson, useUpstream, type Upstream } from '../support/upstream.ts'

const PATIENCE_MS = 60_000
const url = 'https://example.com/hook'

const toldSchema = z.strictObject({
  type: z.literal('limit.threshold'),
  timestamp: z.iso.datetime(),
  projectId: z.uuid(),
  data: z.looseObject({ limitId: z.uuid(), percent: z.int() }),
})

type Told = z.infer<typeof toldSchema>

const usageSchema = z.object({ usage: z.object({ prompt_tokens: z.int(), completion_tokens: z.int() }) })

function useReceiver(): Promise<Upstream> {
  return useUpstream((response) => sendJson(response, {}))
}

const heardBy = ({ requests }: Upstream): readonly Told[] => requests.map(({ body }) => toldSchema.parse(body))

/** Percentages of a limit, in the order in which they were heard. */
const percentsOf = (receiver: Upstream, limitId: string) =>
  heardBy(receiver).flatMap(({ data }) => (data.limitId === limitId ? [data.percent] : []))

async function makeWebhook(api: TestApi, { key }: Tenant, topics = ['threshold']): Promise<string> {
  return text(await api.make('/api/v1/webhooks', { key, body: { url, topics } }), 'id')
}

/** As one of an installation whose receivers are its own. */
async function send(api: TestApi, webhookId: string, receiver: Upstream): Promise<void> {
  await api.db.updateTable('webhook').set({ url: receiver.url }).where('id', '=', webhookId).execute()
}

async function makeLimit(api: TestApi, body: object): Promise<string> {
  return text(await api.make('/api/v1/limits', { key: api.operatorKey, body }), 'id')
}

function startSender({ db }: TestApi): void {
  const log = { warn: () => {} }
  const sender = startWebhookSender({ db, log, nowMs: () => Date.now(), allowsPrivate: true, secrets: testSecrets })
  onTestFinished(() => sender.stop())
}

/** Of one call more: what it used, as its client is told. */
async function usageOf({ url: base }: Pick<TestGateway, 'url'>, key: string) {
  const response = await askChat({ url: base, key })
  expect(response.status).toBe(200)
  const { usage } = usageSchema.parse(await response.json())
  return {
    tokens: usage.prompt_tokens + usage.completion_tokens,
    // At the catalog's prices: 0.40 and 1.60 USD for a million.
    nano: BigInt(usage.prompt_tokens * 400 + usage.completion_tokens * 1_600),
  }
}

test('limits on calls, tokens and money of a key tell each percentage once, with what was spent', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const agent = await makeKey(api, tenant)
  const each = await usageOf(gateway, tenant.key)
  const ofKey = { scope: 'key', subjectId: agent.id }
  // A tenth of each is one call: all calls ask the same.
  const cap = { tokens: each.tokens * 10, money: usd(formatNano(each.nano * 10n)) }
  const limits = {
    calls: await makeLimit(api, { ...ofKey, measure: 'calls', period: 'month', cap: 2, thresholds: [100, 50] }),
    tokens: await makeLimit(api, {
      ...ofKey,
      measure: 'tokens',
      period: 'life',
      cap: cap.tokens,
      thresholds: [9, 10, 21],
    }),
    money: await makeLimit(api, {
      ...ofKey,
      measure: 'money',
      period: 'day',
      timeZone: 'Asia/Tokyo',
      cap: cap.money,
      thresholds: [15],
    }),
  }
  const receiver = await useReceiver()
  await send(api, await makeWebhook(api, tenant), receiver)
  startSender(api)
  expect(await usageOf(gateway, agent.secret)).toEqual(each)
  await pollUntil(() => heardBy(receiver).length >= 3, { what: 'the first call is told' })
  expect(await usageOf(gateway, agent.secret)).toEqual(each)
  await pollUntil(() => heardBy(receiver).length >= 5, { what: 'the second call is told' })
  expect((await askChat({ url: gateway.url, key: agent.secret })).status).toBe(429)
  await fanOut(api.db, Date.now())
  await pollUntil(() => isAllHeard(api), { what: 'nothing waits' })

  const told = heardBy(receiver)
  expect(told.map(({ projectId }) => projectId)).toEqual(Array.from({ length: 5 }, () => tenant.projectId))
  const dataOf = (limitId: string) => told.flatMap(({ data }) => (data.limitId === limitId ? [data] : []))
  const window = async (limitId: string) => {
    const { body } = await api.ask('GET', `/api/v1/limits/${limitId}`, { key: tenant.key })
    return z.looseObject({ startsAt: z.string(), resetsAt: z.string().nullable() }).parse(body['window'])
  }
  const expected = async (limitId: string, rest: object) => {
    const { startsAt, resetsAt } = await window(limitId)
    return { limitId, scope: 'key', subjectId: agent.id, step: null, ...rest, window: { startsAt, resetsAt } }
  }
  const calls = await expected(limits.calls, { measure: 'calls', period: 'month', cap: 2 })
  expect(dataOf(limits.calls)).toEqual([
    { ...calls, percent: 50, spent: 1 },
    { ...calls, percent: 100, spent: 2 },
  ])
  const tokens = await expected(limits.tokens, { measure: 'tokens', period: 'life', cap: cap.tokens })
  expect(tokens.window.resetsAt).toBeNull()
  expect(dataOf(limits.tokens).toSorted((one, other) => one.percent - other.percent)).toEqual([
    { ...tokens, percent: 9, spent: each.tokens },
    { ...tokens, percent: 10, spent: each.tokens },
  ])
  expect(dataOf(limits.money)).toEqual([
    {
      ...(await expected(limits.money, { measure: 'money', period: 'day', cap: cap.money })),
      percent: 15,
      spent: usd(formatNano(each.nano * 2n)),
    },
  ])
}, 60_000)

test('webhooks of others, of other topics and deleted ones hear nothing; one that takes up the topic hears of now', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  const stranger = await makeTenant(api)
  const asked = { scope: 'project', subjectId: tenant.projectId, measure: 'calls', period: 'month', cap: 4 }
  await makeLimit(api, { ...asked, thresholds: [25] })
  const hooks = {
    own: await makeWebhook(api, tenant),
    deaf: await makeWebhook(api, tenant, ['state', 'exhaustion']),
    ended: await makeWebhook(api, tenant),
    foreign: await makeWebhook(api, stranger),
  }
  const told = async () => {
    await fanOut(api.db, Date.now())
    const rows = api.db.selectFrom('webhook_delivery').select(['webhook_id', 'topic']).orderBy('id')
    return (await rows.execute()).map(({ webhook_id: id, topic }) => [id, topic])
  }
  await told()
  expect((await api.ask('DELETE', `/api/v1/webhooks/${hooks.ended}`, { key: tenant.key })).status).toBe(204)
  await usageOf(gateway, tenant.key)
  await pollUntil(async () => (await told()).length > 0, { what: 'it is told' })
  await usageOf(gateway, stranger.key)
  expect(await told()).toEqual([[hooks.own, 'threshold']])
  const change = { key: tenant.key, body: { topics: ['threshold'] } }
  expect((await api.ask('PATCH', `/api/v1/webhooks/${hooks.deaf}`, change)).status).toBe(200)
  expect(await told()).toEqual([
    [hooks.own, 'threshold'],
    [hooks.deaf, 'threshold'],
  ])
}, 60_000)

test('two processes tell each percentage once', async () => {
  const stage = await useGatewayStage()
  const { api, tenant } = stage
  const receiver = await useReceiver()
  const webhookId = await makeWebhook(api, tenant)
  const change = { url: receiver.url, secret: Buffer.alloc(32), encrypted_by: null }
  await api.db.updateTable('webhook').set(change).where('id', '=', webhookId).execute()
  const thresholds = [5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
  const asked = { scope: 'key', subjectId: tenant.keyId, measure: 'calls', period: 'month', cap: 20, thresholds }
  const limitId = await makeLimit(api, asked)
  const env = { PURSER_WEBHOOKS_PRIVATE: 'true' }
  const processes = await Promise.all([stage.start(env), stage.start(env)])
  for (let round = 0; round < 10; round += 1) {
    await Promise.all(processes.map((running) => usageOf(running, tenant.key)))
  }
  await pollUntil(() => percentsOf(receiver, limitId).includes(100), { what: 'all is told', deadlineMs: PATIENCE_MS })
  await pollUntil(() => isAllHeard(api), { what: 'nothing waits', deadlineMs: PATIENCE_MS })
  expect(percentsOf(receiver, limitId).toSorted((one, other) => one - other)).toEqual(thresholds)
}, 120_000)

/** Whether all that was to be told was heard. */
async function isAllHeard(api: TestApi): Promise<boolean> {
  const waiting = api.db.selectFrom('webhook_delivery').select('id').where('state', '<>', 'delivered')
  return (await waiting.execute()).length === 0
}
