import Anthropic from '@anthropic-ai/sdk'
import { describe, expect, test } from 'vitest'
import { gatewayCatalog } from '../support/gateway-models.ts'
import { useGateway } from '../support/gateway.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { readAll } from '../support/sandbox.ts'

const QUESTION = '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?'
const ASK = { model: 'steady', max_tokens: 200, messages: [{ role: 'user' as const, content: QUESTION }] }

const search: Anthropic.Tool = {
  name: 'search',
  description: 'Searches the notes.',
  input_schema: {
    type: 'object',
    properties: { query: { type: 'string', description: 'the search query' } },
    required: ['query'],
  },
}

/** A pixel. */
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='

const useModels = (kind: 'openai' | 'anthropic' = 'openai') => useGateway({ kind, catalog: gatewayCatalog })

describe.each(['openai', 'anthropic'] as const)('over a route of kind %s', (kind) => {
  test('an Anthropic client is answered, whole and streamed, and told what it cost', async () => {
    const gateway = await useModels(kind)
    const client = gateway.anthropic()
    const { data: message, response } = await client.messages.create(ASK).withResponse()
    expect(message).toMatchObject({
      type: 'message',
      role: 'assistant',
      model: 'steady',
      content: [{ type: 'text', text: expect.stringContaining('1711') }],
      stop_reason: 'end_turn',
      stop_sequence: null,
      usage: { cache_read_input_tokens: 0, cache_creation_input_tokens: 0 },
    })
    const [billed] = await gateway.sandbox.readLog()
    expect(message.usage.input_tokens).toBe(billed?.usage.promptTokens)
    expect(message.usage.output_tokens).toBe(billed?.usage.completionTokens)
    expect(response.headers.get('x-purser-call-id')).toBe(message.id.replace('msg_', ''))
    expect(response.headers.get('x-purser-route')).toBe('steady')
    expect(response.headers.get('x-purser-cost')).toMatch(/^0\.0\d+ USD$/)
    expect(response.headers.get('x-purser-remaining')).toMatch(/^9\.99\d+ USD$/)
    expect(response.headers.get('request-id')).toMatch(/^req_/)

    const streamed = await client.messages.stream(ASK).finalMessage()
    expect(streamed).toMatchObject({ ...message, id: streamed.id })
    expect(streamed.id).not.toBe(message.id)
    expect(await gateway.sandbox.readLog()).toHaveLength(2)
    await expectVerified(gateway.api)
  })

  test('a stream is told event by event, in order', async () => {
    const gateway = await useModels(kind)
    const { data, response } = await gateway
      .anthropic()
      .messages.create({ ...ASK, model: 'counted', stream: true })
      .withResponse()
    const events = await readAll(data)
    expect(response.headers.get('x-purser-held')).toMatch(/ USD$/)
    const types = events.map(({ type }) => type)
    expect(types.slice(0, 2)).toEqual(['message_start', 'content_block_start'])
    expect(new Set(types.slice(2, -3))).toEqual(new Set(['content_block_delta']))
    expect(types.slice(-3)).toEqual(['content_block_stop', 'message_delta', 'message_stop'])
    const [begun] = events
    if (begun?.type !== 'message_start') throw new Error('the stream begins with something else')
    expect(begun.message).toMatchObject({ content: [], stop_reason: null, usage: { output_tokens: 0 } })
    // Counted before it was sent; what is billed stands at the end.
    expect(begun.message.usage.input_tokens).toBeGreaterThan(10)
    const [billed] = await gateway.sandbox.readLog()
    expect(events.at(-2)).toMatchObject({
      delta: { stop_reason: 'end_turn' },
      usage: { input_tokens: billed?.usage.promptTokens, output_tokens: billed?.usage.completionTokens },
      purser: { route: 'counted', balance_class: 'direct', attempts: 1, currency: 'USD' },
    })
  })

  test('tools are called, and their results lead to an answer, whole and streamed', async () => {
    const gateway = await useModels(kind)
    const client = gateway.anthropic()
    const asked: Anthropic.MessageParam = { role: 'user', content: `${QUESTION} Please search.` }
    const first = await client.messages.create({
      ...ASK,
      messages: [asked],
      system: [{ type: 'text', text: 'Be short.', cache_control: { type: 'ephemeral' } }],
      tools: [{ ...search, cache_control: { type: 'ephemeral' } }],
      tool_choice: { type: 'tool', name: 'search' },
    })
    expect(first.stop_reason).toBe('tool_use')
    const use = first.content.find((block) => block.type === 'tool_use')
    expect(use).toMatchObject({ name: 'search', input: { query: expect.any(String) } })

    const stream = client.messages.stream({ ...ASK, messages: [asked], tools: [search], tool_choice: { type: 'any' } })
    const streamed = await stream.finalMessage()
    expect(streamed.stop_reason).toBe('tool_use')
    expect(streamed.content).toMatchObject([{ type: 'tool_use', name: 'search', input: use?.input }])

    const last = await client.messages.create({
      ...ASK,
      tools: [search],
      messages: [
        asked,
        { role: 'assistant', content: first.content },
        {
          role: 'user',
          content: [
            {
              type: 'tool_result',
              tool_use_id: use?.id ?? '',
              content: [{ type: 'text', text: '<passage id="p2">The mill was rebuilt in 1760.</passage>' }],
            },
            { type: 'text', text: 'When was the mill rebuilt?' },
          ],
        },
      ],
    })
    expect(last.stop_reason).toBe('end_turn')
    expect(last.content).toMatchObject([{ type: 'text', text: expect.stringContaining('1760') }])
    expect(await gateway.sandbox.readLog()).toHaveLength(3)
    await expectVerified(gateway.api)
  })

  test('images, a schema and stop sequences reach the provider', async () => {
    const gateway = await useModels(kind)
    const client = gateway.anthropic()
    const source: Anthropic.Base64ImageSource = { type: 'base64', media_type: 'image/png', data: PNG }
    const seen = await client.messages.create({
      ...ASK,
      messages: [
        {
          role: 'user',
          content: [
            { type: 'image', source },
            { type: 'text', text: QUESTION },
          ],
        },
      ],
    })
    const plain = await client.messages.create(ASK)
    // The sandbox counts 85 tokens for an image.
    expect(seen.usage.input_tokens).toBeGreaterThan(plain.usage.input_tokens + 80)

    const schema = { type: 'object', properties: { year: { type: 'string' } }, required: ['year'] }
    const filled = await client.messages.create({ ...ASK, output_config: { format: { type: 'json_schema', schema } } })
    const [block] = filled.content
    expect(JSON.parse(block?.type === 'text' ? block.text : '')).toMatchObject({ year: expect.any(String) })

    const stopped = await client.messages.create({ ...ASK, stop_sequences: ['built'] })
    expect(stopped.content).toMatchObject([{ type: 'text', text: 'The mill was ' }])
    // OpenAI's API does not tell what ended an answer.
    expect(stopped).toMatchObject(
      kind === 'anthropic'
        ? { stop_reason: 'stop_sequence', stop_sequence: 'built' }
        : { stop_reason: 'end_turn', stop_sequence: null },
    )
  })
})

test('counting tokens costs nothing and holds nothing', async () => {
  const gateway = await useModels()
  const client = gateway.anthropic()
  const { messages } = ASK
  const counted = await client.messages.countTokens({ model: 'counted', messages })
  const bounded = await client.messages.countTokens({ model: 'steady', messages })
  expect(counted.input_tokens).toBeLessThan(bounded.input_tokens)
  const withTools = await client.messages.countTokens({
    model: 'counted',
    messages,
    tools: [search],
    system: 'Be short.',
  })
  expect(withTools.input_tokens).toBeGreaterThan(counted.input_tokens)
  // Longer than any context is told as it is.
  const long = await client.messages.countTokens({
    model: 'steady',
    messages: [{ role: 'user', content: 'x'.repeat(200_000) }],
  })
  expect(long.input_tokens).toBeGreaterThan(200_000)
  expect(await gateway.sandbox.readLog()).toHaveLength(0)
  expect(await gateway.api.db.selectFrom('call').select('id').execute()).toEqual([])
  expect(
    await gateway.api.db.selectFrom('account').select('id').where('envelope_id', 'is not', null).execute(),
  ).toEqual([])
  const message = await client.messages.create({ ...ASK, model: 'counted' })
  expect(message.usage.input_tokens).toBeLessThanOrEqual(counted.input_tokens)
})

test('both headers carry a key, and models are listed to each client in its own words', async () => {
  const gateway = await useModels()
  const bearer = new Anthropic({ baseURL: gateway.url, apiKey: null, authToken: gateway.tenant.key, maxRetries: 0 })
  expect((await bearer.messages.create(ASK)).stop_reason).toBe('end_turn')
  const models = await gateway.anthropic().models.list()
  const names = gatewayCatalog.models.map(({ name }) => name)
  expect(models.data.map(({ id }) => id)).toEqual(names)
  expect(models.hasNextPage()).toBe(false)
  expect(await gateway.anthropic().models.retrieve('steady')).toMatchObject({
    type: 'model',
    max_input_tokens: 128_000,
  })
  await expect(gateway.anthropic().models.retrieve('nothing')).rejects.toBeInstanceOf(Anthropic.NotFoundError)
  const openai = await readAll(await gateway.client().models.list())
  expect(openai.map(({ id, object }) => [id, object])).toEqual(names.map((name) => [name, 'model']))
})

test("an OpenAI client is answered over a route that speaks Anthropic's API", async () => {
  const gateway = await useModels('anthropic')
  const completion = await gateway.client().chat.completions.create({ ...ASK, stop: ['built'] })
  expect(completion.choices).toMatchObject([{ message: { content: 'The mill was ' }, finish_reason: 'stop' }])
  const message = await gateway.anthropic().messages.create({ ...ASK, stop_sequences: ['built'] })
  expect(completion.usage).toMatchObject({
    prompt_tokens: message.usage.input_tokens,
    completion_tokens: message.usage.output_tokens,
  })
})

test('models that think are asked to, and their thoughts are billed', async () => {
  const gateway = await useModels('anthropic')
  const thinking: Anthropic.ThinkingConfigParam = { type: 'enabled', budget_tokens: 1_024 }
  const ask = { ...ASK, model: 'thinker', max_tokens: 3_000 }
  const message = await gateway.anthropic().messages.create({ ...ask, thinking, output_config: { effort: 'low' } })
  expect(message.content).toMatchObject([{ type: 'text', text: expect.stringContaining('1711') }])
  expect(message.usage.output_tokens_details?.thinking_tokens).toBeGreaterThan(0)
  // Coding agents send this to every model, known to think or not.
  const adaptive: Anthropic.ThinkingConfigParam = { type: 'adaptive' }
  expect((await gateway.anthropic().messages.create({ ...ASK, thinking: adaptive })).stop_reason).toBe('end_turn')
  await expectVerified(gateway.api)
})

test('a client that goes away ends the request at the provider, and is charged what it read', async () => {
  const gateway = await useModels()
  const stream = gateway.anthropic().messages.stream({ ...ASK, model: 'paced' })
  stream.on('text', () => stream.abort())
  await expect(stream.finalMessage()).rejects.toBeInstanceOf(Anthropic.APIUserAbortError)
  await pollUntil(async () => (await gateway.sandbox.readLog())[0]?.clientGoneAt !== undefined, { what: 'the abort' })
  await pollUntil(
    async () => {
      const attempts = await gateway.api.db.selectFrom('attempt').select(['state', 'outcome']).execute()
      return attempts.every(({ state, outcome }) => state === 'resolved' && outcome === 'aborted')
    },
    { what: 'its settlement' },
  )
  const pockets = await gateway.api.db
    .selectFrom('account')
    .select('pending_debit')
    .where('envelope_id', 'is not', null)
    .execute()
  expect(pockets.every(({ pending_debit }) => pending_debit === 0n)).toBe(true)
  await expectVerified(gateway.api)
})

test('an Idempotency-Key makes one call of many requests; another surface is another request', async () => {
  const gateway = await useModels()
  const headers = { 'Idempotency-Key': 'once' }
  const first = await gateway.anthropic().messages.create(ASK, { headers })
  const again = await gateway.anthropic().messages.create(ASK, { headers })
  expect(again).toEqual(first)
  expect(await gateway.anthropic().messages.stream(ASK, { headers }).finalMessage()).toMatchObject({
    id: first.id,
    content: first.content,
    usage: { output_tokens: first.usage.output_tokens },
  })
  const other: unknown = await gateway
    .client()
    .chat.completions.create(ASK, { headers })
    .catch((each: unknown) => each)
  expect(other).toMatchObject({ status: 422 })
  expect(await gateway.sandbox.readLog()).toHaveLength(1)
})
