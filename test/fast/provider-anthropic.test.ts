import { createProvider } from '#providers/create-provider.ts'
import type { AnswerDelta, ProviderChatRequest, ProviderResult } from '#providers/provider.ts'
import { NO_USAGE } from '#domain/pricing.ts'
import { expect, test } from 'vitest'
import { chatOf, sendJson, sendMessageEvents, useUpstream, type SeenRequest } from '../support/upstream.ts'

type Events = readonly { readonly type: string }[]

interface Asked {
  readonly result: ProviderResult
  readonly request: SeenRequest | undefined
}

async function ask(
  answer: Events | object,
  change: Partial<ProviderChatRequest> = {},
  settings: object = {},
): Promise<Asked> {
  const upstream = await useUpstream((response) => {
    if (Array.isArray(answer)) sendMessageEvents(response, answer)
    else sendJson(response, answer)
  })
  const configured = { name: 'p', kind: 'anthropic', baseUrl: upstream.url, apiKey: 'secret', ...settings } as const
  const result = await createProvider(configured, { nowMs: () => 0 }).chat(
    chatOf({ upstreamModel: 'claude-haiku-5-5', ...change }),
  )
  expect(upstream.requests).toHaveLength(1)
  return { result, request: upstream.requests[0] }
}

const usageAtStart = { input_tokens: 20, cache_creation_input_tokens: 0, cache_read_input_tokens: 0, output_tokens: 1 }

/** The events of a message, as the API documents them. */
function messageOf(blocks: Events, end: object = {}, usage: object | null = { output_tokens: 12 }): Events {
  const message = {
    id: 'msg_1',
    type: 'message',
    role: 'assistant',
    content: [],
    model: 'm',
    stop_reason: null,
    usage: usageAtStart,
  }
  return [
    { type: 'message_start', ...{ message } },
    { type: 'ping' },
    ...blocks,
    {
      type: 'message_delta',
      ...{ delta: { stop_reason: 'end_turn', stop_sequence: null, ...end }, ...(usage && { usage }) },
    },
    { type: 'message_stop' },
  ]
}

function blockOf(index: number, start: object, deltas: readonly object[]): Events {
  return [
    { type: 'content_block_start', ...{ index, content_block: start } },
    ...deltas.map((delta) => ({ type: 'content_block_delta', ...{ index, delta } })),
    { type: 'content_block_stop', ...{ index } },
  ]
}

const text = (index: number, ...pieces: readonly string[]) =>
  blockOf(
    index,
    { type: 'text', text: '' },
    pieces.map((piece) => ({ type: 'text_delta', text: piece })),
  )

test('a plain chat is sent with nothing that was not asked for, and its stream is an answer', async () => {
  const deltas: AnswerDelta[] = []
  const ids: string[] = []
  const { result, request } = await ask(messageOf(text(0, 'In ', '1711.')), {
    onDelta: (delta) => deltas.push(delta),
    onRequestId: (id) => ids.push(id),
  })
  expect(request).toMatchObject({
    method: 'POST',
    path: '/v1/messages',
    headers: { authorization: 'Bearer secret', 'x-client-request-id': 'call:1', 'anthropic-version': '2026-10-21' },
  })
  expect(request?.body).toEqual({
    model: 'claude-haiku-5-5',
    max_tokens: 50,
    messages: [{ role: 'user', content: [{ type: 'text', text: 'When was the mill built?' }] }],
    stream: true,
  })
  expect(result).toEqual({
    outcome: 'answered',
    received: {
      text: 'In 1711.',
      toolCalls: [],
      vectors: [],
      finishReason: 'stop',
      reasoningBytes: 0,
      usage: { ...NO_USAGE, input: 20, output: 12 },
      providerRequestId: 'msg_1',
    },
  })
  expect(deltas).toEqual([
    { kind: 'text', text: 'In ' },
    { kind: 'text', text: '1711.' },
  ])
  expect(ids).toEqual(['msg_1'])
})

test('everything that a chat can ask for arrives as the Messages API has it, and its hints stay behind', async () => {
  const parameters = { type: 'object', properties: { year: { type: 'integer' } } }
  const { request } = await ask(
    messageOf(text(0, 'x')),
    {
      body: {
        messages: [
          { role: 'system', content: 'Be brief.' },
          { role: 'system', content: '' },
          {
            role: 'user',
            content: [
              { type: 'text', text: 'What is this?' },
              { type: 'image', url: 'https://example.com/mill.png', detail: 'low' },
              { type: 'image', url: 'data:image/png;base64,aGk=' },
            ],
          },
          {
            role: 'assistant',
            content: '',
            toolCalls: [
              { id: 'c1', name: 'look', arguments: '{"year":1711}' },
              { id: 'c2', name: 'look', arguments: 'no JSON' },
            ],
          },
          { role: 'tool', toolCallId: 'c1', content: 'a mill' },
          { role: 'tool', toolCallId: 'c2', content: '' },
          { role: 'user', content: 'And now?' },
        ],
        tools: [{ name: 'look', description: 'Looks.', parameters }],
        toolChoice: 'auto',
        schema: { name: 'fact', schema: parameters },
        temperature: 0.2,
        topP: 0.9,
        stop: ['END'],
        seed: 7,
        reasoningEffort: 'minimal',
      },
    },
    { promptCache: true },
  )
  expect(request?.body).toEqual({
    model: 'claude-haiku-5-5',
    max_tokens: 50,
    system: [{ type: 'text', text: 'Be brief.' }],
    messages: [
      {
        role: 'user',
        content: [
          { type: 'text', text: 'What is this?' },
          { type: 'image', source: { type: 'url', url: 'https://example.com/mill.png' } },
          { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'aGk=' } },
        ],
      },
      {
        role: 'assistant',
        content: [
          { type: 'tool_use', id: 'c1', name: 'look', input: { year: 1711 } },
          { type: 'tool_use', id: 'c2', name: 'look', input: { arguments: 'no JSON' } },
        ],
      },
      {
        role: 'user',
        content: [
          { type: 'tool_result', tool_use_id: 'c1', content: 'a mill' },
          { type: 'tool_result', tool_use_id: 'c2', content: '' },
          { type: 'text', text: 'And now?' },
        ],
      },
    ],
    stream: true,
    tools: [{ name: 'look', description: 'Looks.', input_schema: parameters }],
    tool_choice: { type: 'auto' },
    thinking: { type: 'adaptive' },
    output_config: { effort: 'low', format: { type: 'json_schema', schema: parameters } },
    stop_sequences: ['END'],
    cache_control: { type: 'ephemeral' },
  })
})

test.each([
  ['none', { type: 'none' }],
  ['required', { type: 'any' }],
  [{ name: 'look' }, { type: 'tool', name: 'look' }],
] as const)('the tool choice %j is sent as %j', async (toolChoice, expected) => {
  const tools = [{ name: 'look', parameters: { type: 'object' } }]
  const { request } = await ask(messageOf(text(0, 'x')), { body: { messages: [], tools, toolChoice } })
  expect(request?.body).toMatchObject({ tool_choice: expected })
})

test.each([
  ['claude-haiku-4-5', 'low', 8_000, { type: 'enabled', budget_tokens: 1_024 }],
  ['claude-opus-4-5-20251101', 'high', 8_000, { type: 'enabled', budget_tokens: 4_000 }],
  ['claude-3-7-sonnet-20250219', 'medium', 64_000, { type: 'enabled', budget_tokens: 4_096 }],
  ['claude-sonnet-4-5', 'high', 2_000, undefined],
  ['claude-sonnet-4-5', 'minimal', 8_000, undefined],
  ['claude-opus-4-6', 'high', 8_000, { type: 'adaptive' }],
  ['claude-sonnet-5', 'medium', 500, { type: 'adaptive' }],
] as const)(
  '%s with %s effort and %d output tokens thinks as %j',
  async (upstreamModel, reasoningEffort, maxOutputTokens, thinking) => {
    const { request } = await ask(messageOf(text(0, 'x')), {
      upstreamModel,
      maxOutputTokens,
      body: { messages: [], reasoningEffort },
    })
    expect(request?.body).toMatchObject({ max_tokens: maxOutputTokens })
    if (thinking) expect(request?.body).toMatchObject({ thinking })
    else expect(request?.body).not.toHaveProperty('thinking')
  },
)

test('a tool that must be called goes before thinking, which excludes it', async () => {
  const tools = [{ name: 'look', parameters: { type: 'object' } }]
  const body: ProviderChatRequest['body'] = { messages: [], tools, toolChoice: 'required', reasoningEffort: 'high' }
  const { request } = await ask(messageOf(text(0, 'x')), { body })
  expect(request?.body).not.toHaveProperty('thinking')
  expect(request?.body).not.toHaveProperty('output_config')
})

test('thoughts, texts and tool calls of one stream each go their way', async () => {
  const deltas: AnswerDelta[] = []
  const { result } = await ask(
    messageOf(
      [
        ...blockOf(0, { type: 'thinking', thinking: '', signature: '' }, [
          { type: 'thinking_delta', thinking: 'Hmm' },
          { type: 'signature_delta', signature: 'c2ln' },
        ]),
        ...blockOf(1, { type: 'redacted_thinking', data: 'abcd' }, []),
        ...text(2, 'I look.'),
        ...blockOf(3, { type: 'tool_use', id: 'toolu_1', name: 'look', input: {} }, [
          { type: 'input_json_delta', partial_json: '' },
          { type: 'input_json_delta', partial_json: '{"ye' },
          { type: 'input_json_delta', partial_json: 'ar":1}' },
        ]),
        ...blockOf(4, { type: 'tool_use', id: 'toolu_2', name: 'rest', input: {} }, []),
        ...blockOf(5, { type: 'server_tool_use', id: 's1', name: 'web_search', input: {} }, [
          { type: 'input_json_delta', partial_json: '{"query":"x"}' },
        ]),
        ...blockOf(6, { type: 'of_tomorrow', content: [] }, [{ type: 'delta_of_tomorrow' }]),
      ],
      { stop_reason: 'tool_use' },
    ),
    { onDelta: (delta) => deltas.push(delta) },
  )
  expect(result).toMatchObject({
    outcome: 'answered',
    received: {
      text: 'I look.',
      reasoningBytes: 7,
      finishReason: 'tool_calls',
      toolCalls: [
        { id: 'toolu_1', name: 'look', arguments: '{"year":1}' },
        { id: 'toolu_2', name: 'rest', arguments: '{}' },
      ],
    },
  })
  expect(deltas).toEqual([
    { kind: 'text', text: 'I look.' },
    { kind: 'tool_call', index: 0, id: 'toolu_1', name: 'look', arguments: '' },
    { kind: 'tool_call', index: 0, arguments: '{"ye' },
    { kind: 'tool_call', index: 0, arguments: 'ar":1}' },
    { kind: 'tool_call', index: 1, id: 'toolu_2', name: 'rest', arguments: '' },
  ])
})

test.each([
  ['end_turn', 'answered', 'stop'],
  ['stop_sequence', 'answered', 'stop'],
  ['max_tokens', 'answered', 'length'],
  ['model_context_window_exceeded', 'answered', 'length'],
  ['pause_turn', 'answered', 'pause_turn'],
  ['refusal', 'content_filter', 'content_filter'],
])('the stop reason %s ends as %s with %s, and is billed', async (stop_reason, outcome, finishReason) => {
  const { result } = await ask(messageOf(text(0, 'x'), { stop_reason }))
  expect(result).toMatchObject({ outcome, received: { finishReason, usage: { input: 20, output: 12 } } })
})

test.each<[string, object | null, object | null]>([
  [
    'cumulative counts at the end',
    {
      input_tokens: 25,
      cache_read_input_tokens: 60,
      cache_creation_input_tokens: 15,
      output_tokens: 12,
      output_tokens_details: { thinking_tokens: 5 },
    },
    { input: 100, cachedInput: 60, cacheWrite: 15, output: 12, reasoning: 5 },
  ],
  [
    'nulls at the end, and numbers at the start',
    { input_tokens: null, cache_read_input_tokens: null, output_tokens: 12 },
    { input: 20, output: 12 },
  ],
  [
    'tools of the provider',
    { output_tokens: 12, server_tool_use: { web_search_requests: 2, web_fetch_requests: 1 } },
    { toolUses: { web_search: 2, web_fetch: 1 } },
  ],
  ['no usage at the end, and a running count at the start', null, null],
  ['no output at the end', { input_tokens: 20 }, null],
  ['an output of nothing for a text', { output_tokens: 0 }, null],
  ['more thinking than output', { output_tokens: 12, output_tokens_details: { thinking_tokens: 13 } }, null],
  ['a string', { output_tokens: '12' }, null],
  ['a negative count', { output_tokens: 12, input_tokens: -20 }, null],
])('of %s comes the usage that is true', async (_case, usage, expected) => {
  const { result } = await ask(messageOf(text(0, 'In 1711.'), {}, usage))
  if (expected) expect(result.received.usage).toEqual({ ...NO_USAGE, input: 20, output: 12, ...expected })
  else expect(result).toMatchObject({ outcome: 'answered', received: { usage: null } })
})

test('an answer in one piece is taken', async () => {
  const whole = {
    id: 'msg_2',
    type: 'message',
    role: 'assistant',
    content: [
      { type: 'thinking', thinking: 'Hmm', signature: 'c2ln' },
      { type: 'text', text: 'I look.' },
      { type: 'tool_use', id: 'toolu_1', name: 'look', input: { year: 1 } },
    ],
    stop_reason: 'tool_use',
    usage: { ...usageAtStart, output_tokens: 12 },
  }
  for (const streaming of [true, false]) {
    const { result, request } = await ask(whole, { streaming })
    expect(JSON.stringify(request?.body).includes('"stream":true')).toBe(streaming)
    expect(result).toMatchObject({
      outcome: 'answered',
      received: {
        text: 'I look.',
        reasoningBytes: 3,
        finishReason: 'tool_calls',
        providerRequestId: 'msg_2',
        toolCalls: [{ id: 'toolu_1', name: 'look', arguments: '{"year":1}' }],
        usage: { input: 20, output: 12 },
      },
    })
  }
})

test('a message that was cut keeps the input that was counted, and is no bill', async () => {
  const { result } = await ask(messageOf(text(0, 'In 17')).slice(0, 4))
  expect(result).toMatchObject({
    outcome: 'cut_stream',
    received: { text: 'In 17', finishReason: null, usage: { input: 20, output: 1 }, providerRequestId: 'msg_1' },
  })
})
