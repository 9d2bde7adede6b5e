import { freeFor } from '#db/free-money.ts'
import { formatNano } from '#domain/money.ts'
import Anthropic from '@anthropic-ai/sdk'
import OpenAI from 'openai'
import { expect, test } from 'vitest'
import { expectVerified } from '../support/open-attempt.ts'
import { usd } from '../support/api.ts'
import { useGateway } from '../support/gateway.ts'

const QUESTION = '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?'

test('an OpenAI client is answered, whole and streamed, and told what it cost', async () => {
  const gateway = await useGateway()
  const client = gateway.client()
  const { data, response } = await client.chat.completions
    .create({ model: 'steady', messages: [{ role: 'user', content: QUESTION }], max_tokens: 200 })
    .withResponse()
  expect(data.choices[0]?.message.content).toContain('1711')
  expect(data.choices[0]?.finish_reason).toBe('stop')
  expect(data.usage?.total_tokens).toBeGreaterThan(10)
  expect(response.headers.get('x-purser-route')).toBe('steady')
  expect(response.headers.get('x-purser-balance-class')).toBe('direct')
  expect(response.headers.get('x-purser-cost')).toMatch(/^0\.0\d+ USD$/)
  expect(response.headers.get('x-purser-remaining')).toMatch(/^9\.99\d+ USD$/)
  expect(response.headers.get('x-purser-call-id')).toBe(data.id.replace('chatcmpl-', ''))

  const stream = await client.chat.completions.create({
    model: 'steady',
    messages: [{ role: 'user', content: QUESTION }],
    max_tokens: 200,
    stream: true,
  })
  let text = ''
  let usage: OpenAI.CompletionUsage | null | undefined
  const reasons: string[] = []
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? ''
    const reason = chunk.choices[0]?.finish_reason
    if (reason) reasons.push(reason)
    usage = chunk.usage ?? usage
  }
  expect(text).toBe(data.choices[0]?.message.content)
  expect(reasons).toEqual(['stop'])
  expect(usage).toEqual(data.usage)
  expect(await gateway.sandbox.readLog()).toHaveLength(2)
  await expectVerified(gateway.api)
})

test('what is refused is refused in the words of OpenAI, before anything is sent', async () => {
  const gateway = await useGateway()
  const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'hello' }]
  const refused = async (key: string | undefined, change: object): Promise<InstanceType<typeof OpenAI.APIError>> => {
    const body = { model: 'steady', messages, max_tokens: 10, ...change }
    return gateway
      .client(key)
      .chat.completions.create(body)
      .then(() => Promise.reject(new Error('it was answered')))
      .catch((error: unknown) => {
        if (error instanceof OpenAI.APIError) return error
        throw error
      })
  }
  expect(await refused(`purser_pk_${'x'.repeat(43)}`, {})).toMatchObject({ status: 401, code: 'invalid_api_key' })
  expect(await refused(gateway.api.operatorKey, {})).toMatchObject({ status: 403, code: 'key_not_allowed' })
  expect(await refused(undefined, { model: 'nothing' })).toMatchObject({ status: 404, code: 'model_not_found' })
  expect(await refused(undefined, { functions: [{ name: 'f' }] })).toMatchObject({ status: 400, param: 'functions' })
  expect((await refused(undefined, { messages: undefined })).message).toContain('messages: is missing')
  expect(await refused(undefined, { messages: [] })).toMatchObject({ status: 400, param: 'messages' })
  expect(await refused(undefined, { temperature: 9 })).toMatchObject({ status: 400, param: 'temperature' })
  expect(await gateway.sandbox.readLog()).toHaveLength(0)
})

test('a base URL with too little or too much of /v1, and what is not here, is answered in the words of the client', async () => {
  const { url, tenant, sandbox } = await useGateway()
  const openai = (base: string) => new OpenAI({ baseURL: `${url}${base}`, apiKey: tenant.key, maxRetries: 0 })
  const body = { model: 'steady', max_tokens: 10, messages: [{ role: 'user' as const, content: 'hello' }] }
  const askings: readonly (readonly [() => Promise<unknown>, RegExp])[] = [
    [() => openai('').chat.completions.create(body), /base URL .* ends with \/v1/],
    [async () => openai('/').models.list(), /base URL .* ends with \/v1/],
    [() => openai('/v1/v1').responses.create({ model: 'steady', input: 'hello' }), /\/v1 twice/],
    [async () => openai('/v1').batches.list(), /GET \/v1\/batches.*POST \/v1\/chat\/completions/],
    [() => openai('/v1').post('/responses/compact', { body: {} }), /POST \/v1\/responses\/compact/],
    [() => openai('/v1').responses.retrieve('resp_1'), /responses are not kept here/],
  ]
  for (const [ask, said] of askings) {
    const refused = expect.objectContaining({ status: 404, code: 'not_found', message: expect.stringMatching(said) })
    await expect(ask(), String(said)).rejects.toEqual(refused)
  }
  const anthropic = new Anthropic({ baseURL: `${url}/v1`, apiKey: tenant.key, authToken: null, maxRetries: 0 })
  await expect(anthropic.messages.create(body)).rejects.toThrow(/\/v1 twice/)
  // Nobody has to have a key to be told so.
  const nobody = await fetch(`${url}/messages`, { method: 'POST', headers: { 'anthropic-version': '2023-06-01' } })
  expect(await nobody.json()).toMatchObject({ type: 'error', error: { type: 'not_found_error' } })
  expect(await sandbox.readLog()).toHaveLength(0)
})

test('no money is 402 with what bound it, and clients do not repeat it', async () => {
  const gateway = await useGateway()
  const { api, tenant } = gateway
  await api.make('/api/v1/limits', {
    key: api.operatorKey,
    body: { scope: 'key', subjectId: tenant.keyId, measure: 'money', period: 'life', cap: usd('0.0001') },
  })
  const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: tenant.key, maxRetries: 3 })
  const error: unknown = await client.chat.completions
    .create({ model: 'steady', messages: [{ role: 'user', content: QUESTION }], max_tokens: 4_000 })
    .catch((each: unknown) => each)
  if (!(error instanceof OpenAI.APIError)) throw new Error('it was answered')
  expect(error).toMatchObject({ status: 402, code: 'insufficient_quota', type: 'insufficient_quota' })
  expect(error.error).toMatchObject({
    limit: 'key limit',
    remaining: '0.000100',
    spent: '0.000000',
    held: '0.000000',
    resets_at: null,
  })
  expect(error.headers?.get('x-should-retry')).toBe('false')
  expect(await gateway.sandbox.readLog()).toHaveLength(0)
  const calls = await api.db.selectFrom('call').select('id').execute()
  expect(calls).toHaveLength(1)
})

test('an Idempotency-Key makes one call of many requests, and belongs to its API key', async () => {
  const gateway = await useGateway()
  const ask = (content: string, idempotencyKey: string) =>
    gateway
      .client()
      .chat.completions.create(
        { model: 'steady', messages: [{ role: 'user', content }], max_tokens: 200 },
        { headers: { 'Idempotency-Key': idempotencyKey } },
      )
  const { data: first, response } = await ask(QUESTION, 'once').withResponse()
  const repeated = await ask(QUESTION, 'once').withResponse()
  const again = repeated.data
  expect(again).toEqual({ ...first, created: again.created })
  // Both say what the one call cost: whoever adds it up has to know.
  expect([response, repeated.response].map(({ headers }) => headers.get('idempotency-replayed'))).toEqual([
    null,
    'true',
  ])
  const other: unknown = await ask('something else', 'once').catch((each: unknown) => each)
  expect(other).toMatchObject({ status: 422, code: 'idempotency_mismatch' })
  await Promise.allSettled(Array.from({ length: 8 }, () => ask(QUESTION, 'twice')))
  expect(await ask(QUESTION, 'twice')).toMatchObject({ choices: first.choices })
  expect(await gateway.sandbox.readLog()).toHaveLength(2)
  await expectVerified(gateway.api)
})

test('what a call says is left is what is left then, by the last of many at once too', async () => {
  const gateway = await useGateway()
  const { api, tenant, sandbox } = gateway
  const openai = gateway.client()
  const ask = async () => {
    const messages = [{ role: 'user' as const, content: QUESTION }]
    const { response } = await openai.chat.completions
      .create({ model: 'steady', messages, max_tokens: 50 })
      .withResponse()
    return response.headers.get('x-purser-remaining')
  }
  const left = async () => {
    const scope = { projectId: tenant.projectId }
    const { account_id: pocket } = await api.db.selectFrom('attempt').select('account_id').executeTakeFirstOrThrow()
    return `${formatNano(await freeFor(api.db, scope, pocket))} USD`
  }
  const first = await ask()
  expect(first).toBe(await left())
  const told = await Promise.all(Array.from({ length: 12 }, ask))
  expect(told).toContain(await left())
  expect(await ask()).toBe(await left())
  expect(await sandbox.readLog()).toHaveLength(14)
})
