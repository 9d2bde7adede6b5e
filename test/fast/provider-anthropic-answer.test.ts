import type { AnswerDelta } from '#providers/provider.ts'
import { NO_USAGE } from '#domain/pricing.ts'
import { expect, test } from 'vitest'
import { askForMessage, blockOf, messageOf, textBlock, usageAtStart } from '../support/anthropic-message.ts'

test('a plain chat is sent with nothing that was not asked for, and its stream is an answer', async () => {
  const deltas: AnswerDelta[] = []
  const ids: string[] = []
  const { result, request } = await askForMessage(messageOf(textBlock(0, 'In ', '1711.')), {
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
      others: [],
      vectors: [],
      finishReason: 'stop',
      stopSequence: null,
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

test('thoughts, texts and tool calls of one stream each go their way', async () => {
  const deltas: AnswerDelta[] = []
  const { result } = await askForMessage(
    messageOf(
      [
        ...blockOf(0, { type: 'thinking', thinking: '', signature: '' }, [
          { type: 'thinking_delta', thinking: 'Hmm' },
          { type: 'signature_delta', signature: 'c2ln' },
        ]),
        ...blockOf(1, { type: 'redacted_thinking', data: 'abcd' }, []),
        ...textBlock(2, 'I look.'),
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
  const { result } = await askForMessage(messageOf(textBlock(0, 'x'), { stop_reason }))
  expect(result).toMatchObject({ outcome, received: { finishReason, usage: { input: 20, output: 12 } } })
})

test('the text that ended an answer is told', async () => {
  const end = { stop_reason: 'stop_sequence', stop_sequence: 'END' }
  const { result } = await askForMessage(messageOf(textBlock(0, 'x'), end))
  expect(result).toMatchObject({ outcome: 'answered', received: { finishReason: 'stop', stopSequence: 'END' } })
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
  const { result } = await askForMessage(messageOf(textBlock(0, 'In 1711.'), {}, usage))
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
    const { result, request } = await askForMessage(whole, { streaming })
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
  const long = 'a word and another '.repeat(100)
  const { result } = await askForMessage(messageOf(textBlock(0, long)).slice(0, 4))
  expect(result).toMatchObject({
    outcome: 'cut_stream',
    received: { text: long, finishReason: null, usage: { input: 20, output: 1 }, providerRequestId: 'msg_1' },
  })
})
