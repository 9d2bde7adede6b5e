import Anthropic from '@anthropic-ai/sdk'
import { expect, test } from 'vitest'
import { usd } from '../support/api.ts'
import { gatewayCatalog } from '../support/gateway-models.ts'
import { useGateway, type TestGateway } from '../support/gateway.ts'
import { expectVerified } from '../support/open-attempt.ts'

const QUESTION = '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?'
const ASK = { model: 'steady', max_tokens: 200, messages: [{ role: 'user' as const, content: QUESTION }] }

const useModels = () => useGateway({ catalog: gatewayCatalog })

async function refusedBy(
  gateway: TestGateway,
  change: object,
  key?: string,
): Promise<InstanceType<typeof Anthropic.APIError>> {
  return gateway
    .anthropic(key)
    .messages.create({ ...ASK, ...change })
    .then(() => Promise.reject(new Error('it was answered')))
    .catch((error: unknown) => {
      if (error instanceof Anthropic.APIError) return error
      throw error
    })
}

test('what is refused is refused in the words of Anthropic, before anything is sent', async () => {
  const gateway = await useModels()
  const stranger = await refusedBy(gateway, {}, `purser_pk_${'x'.repeat(43)}`)
  expect(stranger).toBeInstanceOf(Anthropic.AuthenticationError)
  expect(stranger).toMatchObject({ status: 401, type: 'authentication_error', errorCode: 'invalid_api_key' })
  expect(stranger.requestID).toMatch(/^req_/)
  expect(stranger.error).toMatchObject({ type: 'error', request_id: stranger.requestID })
  expect(stranger.headers?.get('x-should-retry')).toBe('false')
  const operator = await refusedBy(gateway, {}, gateway.api.operatorKey)
  expect(operator).toBeInstanceOf(Anthropic.PermissionDeniedError)
  const nothing = await refusedBy(gateway, { model: 'nothing' })
  expect(nothing).toBeInstanceOf(Anthropic.NotFoundError)
  expect(nothing).toMatchObject({ type: 'not_found_error', errorCode: 'model_not_found' })

  const user = (content: unknown) => ({ messages: [{ role: 'user', content }] })
  const bad: readonly (readonly [object, string])[] = [
    [{ messages: [] }, 'messages'],
    [{ max_tokens: undefined }, 'max_tokens'],
    [user([{ type: 'document', source: {} }]), 'messages.0.content.0.type'],
    [user([]), 'messages.0.content'],
    [user([{ type: 'image', source: { type: 'file', file_id: 'f' } }]), 'messages.0.content.0.source.type'],
    [{ tools: [{ type: 'web_search_20250305', name: 'web_search' }] }, 'tools.0.type'],
    [{ mcp_servers: [{ type: 'url', url: 'https://x', name: 'x' }] }, 'mcp_servers'],
    [{ service_tier: 'priority' }, 'service_tier'],
    [{ speed: 'fast' }, 'speed'],
    [{ unheard_of: 1 }, 'unheard_of'],
    [{ context_management: { edits: [{ type: 'compact_20260112' }] } }, 'context_management'],
    [{ thinking: { type: 'enabled', budget_tokens: 1024 }, max_tokens: 2048 }, 'thinking'],
  ]
  for (const [change, param] of bad) {
    const refused = await refusedBy(gateway, change)
    expect(refused, param).toBeInstanceOf(Anthropic.BadRequestError)
    expect(refused).toMatchObject({ type: 'invalid_request_error', error: { error: { param } } })
  }
  const elsewhere = await gateway
    .anthropic()
    .get('/v1/messages/batches')
    .catch((error: unknown) => error)
  expect(elsewhere).toBeInstanceOf(Anthropic.NotFoundError)
  expect(await gateway.sandbox.readLog()).toHaveLength(0)
})

test('no money is 402 with what bound it, and clients do not repeat it', async () => {
  const gateway = await useModels()
  const { api, tenant } = gateway
  await api.make('/api/v1/limits', {
    key: api.operatorKey,
    body: { scope: 'key', subjectId: tenant.keyId, measure: 'money', period: 'life', cap: usd('0.0001') },
  })
  const client = gateway.anthropic().withOptions({ maxRetries: 3 })
  const error: unknown = await client.messages
    .stream({ ...ASK, max_tokens: 4_000 })
    .finalMessage()
    .catch((each: unknown) => each)
  if (!(error instanceof Anthropic.PaymentRequiredError)) throw error
  expect(error).toMatchObject({ status: 402, type: 'billing_error', errorCode: 'insufficient_funds' })
  expect(error.error).toMatchObject({
    error: {
      limit: 'key limit',
      remaining: '0.000100',
      spent: '0.000000',
      held: '0.000000',
      resets_at: null,
      remedy: expect.any(String),
    },
  })
  expect(error.headers.get('x-should-retry')).toBe('false')
  expect(await gateway.sandbox.readLog()).toHaveLength(0)
  expect(await api.db.selectFrom('call').select('id').execute()).toHaveLength(1)
})

test('a route that is used up is 429 with Retry-After', async () => {
  const gateway = await useModels()
  await gateway.anthropic().messages.create({ ...ASK, model: 'seldom' })
  const busy = await refusedBy(gateway, { model: 'seldom' })
  expect(busy).toBeInstanceOf(Anthropic.RateLimitError)
  expect(busy).toMatchObject({ type: 'rate_limit_error', errorCode: 'busy' })
  expect(Number(busy.headers?.get('retry-after'))).toBeGreaterThan(0)
  expect(busy.headers?.get('x-should-retry')).toBe('true')
  expect(await gateway.sandbox.readLog()).toHaveLength(1)
})

test('a prompt that is too long for its routes is told so that agents shorten it, as what is filtered is', async () => {
  const gateway = await useModels()
  for (const model of ['long', 'short']) {
    const long = await refusedBy(gateway, { model, max_tokens: 5 })
    expect(long).toBeInstanceOf(Anthropic.BadRequestError)
    expect(long).toMatchObject({ type: 'invalid_request_error', errorCode: 'context_too_long' })
    expect(long.apiMessage).toMatch(/^prompt is too long: /)
    const same: unknown = await gateway
      .client()
      .chat.completions.create({ ...ASK, model, max_tokens: 5 })
      .catch((each: unknown) => each)
    expect(same).toMatchObject({ status: 400, code: 'context_length_exceeded', type: 'invalid_request_error' })
  }
  expect(await refusedBy(gateway, { model: 'filtered' })).toMatchObject({ status: 400, errorCode: 'content_filter' })
  await expectVerified(gateway.api)
})

test('a stream whose provider is cut ends with an error event, and is not begun again', async () => {
  const gateway = await useModels()
  const stream = await gateway.anthropic().messages.create({ ...ASK, model: 'cut', stream: true })
  const types: string[] = []
  const error: unknown = await (async () => {
    for await (const { type } of stream) types.push(type)
  })().catch((each: unknown) => each)
  expect(types.filter((type) => type === 'message_start')).toHaveLength(1)
  expect(types).not.toContain('message_stop')
  expect(error).toBeInstanceOf(Anthropic.APIError)
  expect(error).toMatchObject({ type: 'api_error', errorCode: 'upstream_failed' })
  expect(await gateway.sandbox.readLog()).toHaveLength(1)
  await expectVerified(gateway.api)
})
