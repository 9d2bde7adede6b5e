import OpenAI from 'openai'
import { describe, expect, test } from 'vitest'
import { usd } from '../support/api.ts'
import { gatewayCatalog } from '../support/gateway-models.ts'
import { useGateway, type TestGateway } from '../support/gateway.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { readAll } from '../support/sandbox.ts'

const QUESTION = '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?'
const ASK = { model: 'steady', max_output_tokens: 200, input: QUESTION }

const search: OpenAI.Responses.FunctionTool = {
  type: 'function',
  name: 'search',
  description: 'Searches the notes.',
  strict: null,
  parameters: {
    type: 'object',
    properties: { query: { type: 'string', description: 'the search query' } },
    required: ['query'],
  },
}

const useModels = (kind: 'openai' | 'anthropic' = 'openai') => useGateway({ kind, catalog: gatewayCatalog })

async function refusedBy(gateway: TestGateway, change: object): Promise<InstanceType<typeof OpenAI.APIError>> {
  return gateway
    .client()
    .responses.create({ ...ASK, ...change, stream: false })
    .then(() => Promise.reject(new Error('it was answered')))
    .catch((error: unknown) => {
      if (error instanceof OpenAI.APIError) return error
      throw error
    })
}

describe.each(['openai', 'anthropic'] as const)('over a route of kind %s', (kind) => {
  test('a response is given, whole and streamed, and what it cost is told', async () => {
    const gateway = await useModels(kind)
    const client = gateway.client()
    const { data, response } = await client.responses
      .create({ ...ASK, instructions: 'Be short.', metadata: { for: 'test' } })
      .withResponse()
    expect(data).toMatchObject({
      object: 'response',
      status: 'completed',
      model: 'steady',
      instructions: 'Be short.',
      metadata: { for: 'test' },
      output: [{ type: 'message', role: 'assistant', status: 'completed', content: [{ type: 'output_text' }] }],
      store: false,
      error: null,
      incomplete_details: null,
    })
    expect(data.output_text).toContain('1711')
    const [billed] = await gateway.sandbox.readLog()
    expect(data.usage).toMatchObject({
      input_tokens: billed?.usage.promptTokens,
      output_tokens: billed?.usage.completionTokens,
    })
    expect(response.headers.get('x-purser-call-id')).toBe(data.id.replace('resp_', ''))
    expect(response.headers.get('x-purser-cost')).toMatch(/^0\.0\d+ USD$/)

    const streamed = await client.responses.stream({ ...ASK, instructions: 'Be short.' }).finalResponse()
    expect(streamed.output_text).toBe(data.output_text)
    expect(streamed.usage).toEqual(data.usage)
    expect(await gateway.sandbox.readLog()).toHaveLength(2)
    await expectVerified(gateway.api)
  })

  test('functions are called, and their outputs lead to an answer', async () => {
    const gateway = await useModels(kind)
    const client = gateway.client()
    const asked: OpenAI.Responses.ResponseInputItem = { role: 'user', content: `${QUESTION} Please search.` }
    const ask = { ...ASK, input: [asked], tools: [search] }
    const first = await client.responses.create({ ...ask, tool_choice: { type: 'function', name: 'search' } })
    const [call] = first.output
    if (call?.type !== 'function_call') throw new Error('nothing was called')
    expect(JSON.parse(call.arguments)).toMatchObject({ query: expect.any(String) })

    const streamed = await client.responses.stream({ ...ask, tool_choice: 'required' }).finalResponse()
    expect(streamed.output).toMatchObject([
      { type: 'function_call', status: 'completed', name: 'search', arguments: call.arguments },
    ])

    const output = '<passage id="p2">The mill was rebuilt in 1760.</passage>'
    const last = await client.responses.create({
      ...ASK,
      tools: [search],
      input: [
        asked,
        { type: 'reasoning', id: 'rs_1', summary: [] },
        call,
        { type: 'function_call_output', call_id: call.call_id, output },
        { role: 'user', content: [{ type: 'input_text', text: 'When was the mill rebuilt?' }] },
      ],
    })
    expect(last.output_text).toContain('1760')
    expect(await gateway.sandbox.readLog()).toHaveLength(3)
    await expectVerified(gateway.api)
  })
})

test('the events of a stream come in order, each with its number', async () => {
  const gateway = await useModels()
  const events = await readAll(await gateway.client().responses.create({ ...ASK, stream: true }))
  expect(events.map((event) => event.sequence_number)).toEqual(events.map((_, index) => index))
  const types = events.map(({ type }) => type)
  expect(types.slice(0, 4)).toEqual([
    'response.created',
    'response.in_progress',
    'response.output_item.added',
    'response.content_part.added',
  ])
  expect(new Set(types.slice(4, -4))).toEqual(new Set(['response.output_text.delta']))
  expect(types.slice(-4)).toEqual([
    'response.output_text.done',
    'response.content_part.done',
    'response.output_item.done',
    'response.completed',
  ])
  expect(events[0]).toMatchObject({ response: { status: 'in_progress', output: [], usage: null } })
  expect(events.at(-1)).toMatchObject({
    response: { status: 'completed', usage: { output_tokens: expect.any(Number) } },
    purser: { route: 'steady', attempts: 1 },
  })
})

test('a schema, images and a bound of the output reach the provider', async () => {
  const gateway = await useModels()
  const client = gateway.client()
  const schema = { type: 'object', properties: { year: { type: 'string' } }, required: ['year'] }
  const filled = await client.responses.create({
    ...ASK,
    text: { format: { type: 'json_schema', name: 'fact', schema } },
  })
  expect(JSON.parse(filled.output_text)).toMatchObject({ year: expect.any(String) })

  const image: OpenAI.Responses.ResponseInputImage = {
    type: 'input_image',
    image_url: 'https://example.com/mill.png',
    detail: 'auto',
  }
  const parts: OpenAI.Responses.ResponseInputMessageContentList = [image, { type: 'input_text', text: QUESTION }]
  const seen = await client.responses.create({ ...ASK, input: [{ role: 'user', content: parts }] })
  const plain = await client.responses.create(ASK)
  expect(seen.usage?.input_tokens).toBeGreaterThan((plain.usage?.input_tokens ?? 0) + 80)

  const cut = await client.responses.create({ ...ASK, max_output_tokens: 2 })
  expect(cut).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } })
  expect(cut.output).toMatchObject([{ status: 'incomplete' }])
  expect(await gateway.sandbox.readLog()).toHaveLength(4)
})

test('what is not supported is refused by name, before anything is sent', async () => {
  const gateway = await useModels()
  const bad: readonly (readonly [object, string])[] = [
    [{ store: true }, 'store'],
    [{ previous_response_id: 'resp_1' }, 'previous_response_id'],
    [{ background: true }, 'background'],
    [{ conversation: 'conv_1' }, 'conversation'],
    [{ truncation: 'auto' }, 'truncation'],
    [{ include: ['message.output_text.logprobs'] }, 'include'],
    [{ tools: [{ type: 'web_search' }] }, 'tools.0.type'],
    [{ input: [{ type: 'item_reference', id: 'msg_1' }] }, 'input.0.type'],
    [{ input: [] }, 'input'],
    [{ unheard_of: 1 }, 'unheard_of'],
  ]
  for (const [change, param] of bad) {
    expect(await refusedBy(gateway, change), param).toMatchObject({ status: 400, param })
  }
  expect(await refusedBy(gateway, { model: 'nothing' })).toMatchObject({ status: 404, code: 'model_not_found' })
  const kept: unknown = await gateway
    .client()
    .responses.retrieve('resp_1')
    .catch((error: unknown) => error)
  expect(kept).toBeInstanceOf(OpenAI.NotFoundError)
  expect(await gateway.sandbox.readLog()).toHaveLength(0)
})

test('no money is 402 in place of a stream, and a cut one ends with an error event', async () => {
  const gateway = await useModels()
  const { api, tenant } = gateway
  const stream = await gateway.client().responses.create({ ...ASK, model: 'cut', stream: true })
  const types: string[] = []
  const error: unknown = await (async () => {
    for await (const { type } of stream) types.push(type)
  })().catch((each: unknown) => each)
  expect(types.filter((type) => type === 'response.created')).toHaveLength(1)
  expect(types).not.toContain('response.completed')
  expect(error).toMatchObject({ code: 'upstream_failed' })
  await api.make('/api/v1/limits', {
    key: api.operatorKey,
    body: { scope: 'key', subjectId: tenant.keyId, measure: 'money', period: 'life', cap: usd('0.0001') },
  })
  const refused: unknown = await gateway
    .client()
    .responses.stream({ ...ASK, max_output_tokens: 4_000 })
    .finalResponse()
    .catch((each: unknown) => each)
  expect(refused).toMatchObject({ status: 402, code: 'insufficient_quota' })
  expect(await gateway.sandbox.readLog()).toHaveLength(1)
  await expectVerified(gateway.api)
})
