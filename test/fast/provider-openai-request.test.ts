import { createProvider } from '#providers/create-provider.ts'
import { toChatCompletion } from '#providers/openai-request.ts'
import type { ProviderChatRequest } from '#providers/provider.ts'
import { expect, test } from 'vitest'
import { chatOf, chunkOf, DONE, sendEvents, sendJson, useUpstream, type SeenRequest } from '../support/upstream.ts'

/** What arrives at an upstream when this is asked. */
async function sentFor(change: Partial<ProviderChatRequest>, settings: object = {}): Promise<SeenRequest> {
  const upstream = await useUpstream((response, { body }) => {
    if (JSON.stringify(body).includes('"stream":true')) sendEvents(response, [chunkOf({ content: 'x' }, 'stop'), DONE])
    else sendJson(response, { ...chunkOf({}), choices: [{ message: { content: 'x' }, finish_reason: 'stop' }] })
  })
  const provider = createProvider(
    { name: 'p', kind: 'openai', baseUrl: upstream.url, apiKey: 'secret', ...settings },
    { nowMs: () => 0 },
  )
  expect(await provider.chat(chatOf(change))).toMatchObject({ outcome: 'answered', received: { text: 'x' } })
  expect(upstream.requests).toHaveLength(1)
  const [request] = upstream.requests
  if (!request) throw new Error('nothing arrived')
  return request
}

test('a plain chat is sent with nothing that was not asked for', async () => {
  const request = await sentFor({})
  expect(request).toMatchObject({
    method: 'POST',
    path: '/v1/chat/completions',
    headers: { authorization: 'Bearer secret', 'x-client-request-id': 'call:1' },
  })
  expect(request.body).toEqual({
    model: 'm',
    messages: [{ role: 'user', content: 'When was the mill built?' }],
    max_tokens: 50,
    stream: true,
    stream_options: { include_usage: true },
  })
})

test('hints go to upstreams that are known to take them, and others are asked without', async () => {
  const body = { messages: [{ role: 'user' as const, content: 'hi' }], hints: { prompt_cache_key: 'k' } }
  const { body: elsewhere } = await sentFor({ body })
  expect(elsewhere).not.toHaveProperty('prompt_cache_key')
  const atOpenAi = createProvider(
    { name: 'p', kind: 'openai', baseUrl: 'https://api.openai.com/v1', apiKey: 'secret' },
    { nowMs: () => 0 },
  )
  const { extras } = atOpenAi
  expect(toChatCompletion(chatOf({ body }), { maxTokensField: 'max_completion_tokens', extras })).toMatchObject({
    prompt_cache_key: 'k',
  })
})

test('everything that a chat can ask for arrives under the name that the API has for it', async () => {
  const parameters = { type: 'object', properties: { year: { type: 'integer' } } }
  const { body } = await sentFor({
    body: {
      messages: [
        { role: 'system', content: 'Be brief.' },
        {
          role: 'user',
          name: 'ada',
          content: [
            { type: 'text', text: 'What is this?' },
            { type: 'image', url: 'https://example.com/mill.png', detail: 'low' },
            { type: 'image', url: 'data:image/png;base64,aGk=' },
          ],
        },
        { role: 'assistant', content: '', toolCalls: [{ id: 'c1', name: 'look', arguments: '{"year":1711}' }] },
        { role: 'tool', toolCallId: 'c1', content: 'a mill' },
        { role: 'assistant', content: 'A mill.' },
      ],
      tools: [
        { name: 'look', description: 'Looks.', parameters },
        { name: 'rest', parameters },
      ],
      toolChoice: { name: 'look' },
      schema: { name: 'fact', schema: parameters },
      temperature: 0.2,
      topP: 0.9,
      stop: ['END'],
      seed: 7,
      reasoningEffort: 'low',
    },
  })
  expect(body).toEqual({
    model: 'm',
    messages: [
      { role: 'system', content: 'Be brief.' },
      {
        role: 'user',
        name: 'ada',
        content: [
          { type: 'text', text: 'What is this?' },
          { type: 'image_url', image_url: { url: 'https://example.com/mill.png', detail: 'low' } },
          { type: 'image_url', image_url: { url: 'data:image/png;base64,aGk=' } },
        ],
      },
      {
        role: 'assistant',
        content: null,
        tool_calls: [{ type: 'function', id: 'c1', function: { name: 'look', arguments: '{"year":1711}' } }],
      },
      { role: 'tool', tool_call_id: 'c1', content: 'a mill' },
      { role: 'assistant', content: 'A mill.' },
    ],
    max_tokens: 50,
    stream: true,
    stream_options: { include_usage: true },
    tools: [
      { type: 'function', function: { name: 'look', description: 'Looks.', parameters } },
      { type: 'function', function: { name: 'rest', parameters } },
    ],
    tool_choice: { type: 'function', function: { name: 'look' } },
    response_format: { type: 'json_schema', json_schema: { name: 'fact', schema: parameters, strict: true } },
    temperature: 0.2,
    top_p: 0.9,
    stop: ['END'],
    seed: 7,
    reasoning_effort: 'low',
  })
})

test.each(['auto', 'none', 'required'] as const)('the tool choice %s is sent as it is', async (toolChoice) => {
  const tools = [{ name: 'look', parameters: { type: 'object' } }]
  expect((await sentFor({ body: { messages: [], tools, toolChoice } })).body).toMatchObject({ tool_choice: toolChoice })
  expect((await sentFor({ body: { messages: [], tools: [], toolChoice } })).body).not.toHaveProperty('tool_choice')
})

test('the most output tokens go under the name that is configured', async () => {
  const { body } = await sentFor({}, { maxTokensField: 'max_completion_tokens' })
  expect(body).toMatchObject({ max_completion_tokens: 50 })
  expect(body).not.toHaveProperty('max_tokens')
})

test('an upstream that cannot stream is asked for one piece', async () => {
  const { body } = await sentFor({ streaming: false })
  expect(body).not.toHaveProperty('stream')
  expect(body).not.toHaveProperty('stream_options')
})

test('further members are handed on as they are, and change nothing of what was planned', async () => {
  const messages = [{ role: 'user', content: 'hi' }] as const
  const parameters = { frequency_penalty: 0.5, logit_bias: { 50_256: -100 }, response_format: { type: 'json_object' } }
  const { body } = await sentFor({
    body: { messages, parameters: { ...parameters, max_tokens: 9_999, model: 'other' } },
  })
  expect(body).toMatchObject({ ...parameters, max_tokens: 50, model: 'm' })
})

test('a schema and a tool are as strict as they are asked to be, and described', async () => {
  const schema = { name: 'fact', description: 'A fact.', schema: { type: 'object' }, strict: false }
  const tools = [{ name: 'look', parameters: {}, strict: true }]
  const { body } = await sentFor({ body: { messages: [], schema, tools } })
  expect(body).toMatchObject({
    response_format: {
      json_schema: { name: 'fact', description: 'A fact.', schema: { type: 'object' }, strict: false },
    },
    tools: [{ function: { name: 'look', strict: true } }],
  })
})

test('a base URL keeps its query, and needs no slash at its end', async () => {
  const upstream = await useUpstream((response) => sendEvents(response, [chunkOf({ content: 'x' }, 'stop'), DONE]))
  for (const baseUrl of [`${upstream.url}/deployments/m?api-version=1`, `${upstream.url}/`]) {
    const provider = createProvider({ name: 'p', kind: 'openai', baseUrl, apiKey: 'secret' }, { nowMs: () => 0 })
    expect(await provider.chat(chatOf())).toMatchObject({ outcome: 'answered' })
  }
  expect(upstream.requests.map(({ path }) => path)).toEqual([
    '/v1/deployments/m/chat/completions?api-version=1',
    '/v1/chat/completions',
  ])
})
