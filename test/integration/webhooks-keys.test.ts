import { fanOut } from '#db/webhook-fan-out.ts'
import OpenAI from 'openai'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { makeKey } from '../support/api-keys.ts'
import { text } from '../support/api.ts'
import { gatewayCatalog } from '../support/gateway-catalog.ts'
import { useGateway, type TestGateway } from '../support/gateway.ts'
import { pollUntil } from '../support/poll.ts'

const catalog = gatewayCatalog({
  steady: [{ upstreamModel: 'sandbox-steady' }],
  falling: [{ name: 'busy', upstreamModel: 'sandbox-busy' }, { upstreamModel: 'sandbox-steady' }],
})

const deliveriesSchema = z.array(
  z.object({
    topic: z.string(),
    body: z.strictObject({
      type: z.string(),
      keyId: z.string(),
      eventId: z.string(),
      timestamp: z.iso.datetime(),
      isLast: z.literal(false),
      data: z.looseObject({ callId: z.uuid(), route: z.string() }),
    }),
  }),
)

async function told(gateway: TestGateway, webhookId: string) {
  await fanOut(gateway.api.db, Date.now())
  const { tenant, api } = gateway
  const { body } = await api.ask('GET', `/api/v1/webhooks/${webhookId}/deliveries`, { key: tenant.key })
  return deliveriesSchema.parse(body['deliveries']).toReversed()
}

async function ask(gateway: TestGateway, key: string, model: string): Promise<number | undefined> {
  const messages = [{ role: 'user' as const, content: 'When was the mill built?' }]
  try {
    await gateway.client(key).chat.completions.create({ model, max_tokens: 20, messages })
    return 200
  } catch (error) {
    if (error instanceof OpenAI.APIError) return error.status
    throw error
  }
}

test('fallbacks and exhaustion of calls that belong to no run are told, by their key', async () => {
  const gateway = await useGateway({ catalog })
  const { api, tenant } = gateway
  const poor = await makeKey(api, tenant)
  await api.make('/api/v1/limits', {
    key: api.operatorKey,
    body: { scope: 'key', subjectId: poor.id, measure: 'calls', period: 'day', cap: 1 },
  })
  const topics = ['state', 'exhaustion', 'fallback']
  const made = await api.make('/api/v1/webhooks', { key: tenant.key, body: { url: 'https://example.org/', topics } })
  const webhookId = text(made, 'id')
  expect(await ask(gateway, tenant.key, 'steady')).toBe(200)
  expect(await ask(gateway, tenant.key, 'falling')).toBe(200)
  await pollUntil(async () => (await told(gateway, webhookId)).length === 1, { what: 'the fallback is told' })
  expect(await told(gateway, webhookId)).toMatchObject([
    {
      topic: 'fallback',
      body: {
        type: 'attempt.settled',
        keyId: tenant.keyId,
        data: { route: 'sandbox-steady', outcome: 'answered' },
      },
    },
  ])

  expect(await ask(gateway, poor.secret, 'steady')).toBe(200)
  expect(await ask(gateway, poor.secret, 'steady')).toBe(429)
  // Told about once a minute, not for each request of a key that has nothing.
  expect(await ask(gateway, poor.secret, 'steady')).toBe(429)
  await pollUntil(async () => (await told(gateway, webhookId)).length === 2, { what: 'the exhaustion is told' })
  const [, exhausted] = await told(gateway, webhookId)
  expect(exhausted).toMatchObject({
    topic: 'exhaustion',
    body: {
      type: 'attempt.refused',
      keyId: poor.id,
      data: { bound: 'limit', measure: 'calls', asked: '1', free: '0', route: 'sandbox-steady' },
    },
  })
}, 60_000)
