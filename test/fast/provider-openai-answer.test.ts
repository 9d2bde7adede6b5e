import { createProvider } from '#providers/create-provider.ts'
import type { AnswerDelta, ProviderChatRequest, ProviderResult } from '#providers/provider.ts'
import { expect, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { chatOf, chunkOf, DONE, sendEvents, sendJson, useUpstream } from '../support/upstream.ts'

async function answerTo(
  events: readonly unknown[],
  change: Partial<ProviderChatRequest> = {},
): Promise<ProviderResult> {
  return ask(await useUpstream((response) => sendEvents(response, events)), change)
}

async function wholeAnswerTo(body: unknown, change: Partial<ProviderChatRequest> = {}): Promise<ProviderResult> {
  return ask(await useUpstream((response) => sendJson(response, body)), change)
}

async function ask(
  upstream: { readonly url: string; readonly requests: readonly unknown[] },
  change: Partial<ProviderChatRequest>,
): Promise<ProviderResult> {
  const settings = { name: 'p', kind: 'openai', baseUrl: upstream.url, apiKey: 'k' } as const
  const result = await createProvider(settings, { nowMs: () => 0 }).chat(chatOf(change))
  expect(upstream.requests).toHaveLength(1)
  return result
}

const usage = { prompt_tokens: 9, completion_tokens: 12, total_tokens: 21 }

test('tool calls that come in pieces, side by side, are put together and told as they come', async () => {
  const deltas: AnswerDelta[] = []
  const piece = (index: number, call: object) => chunkOf({ tool_calls: [{ index, ...call }] })
  const result = await answerTo(
    [
      chunkOf({ role: 'assistant', content: null }),
      piece(0, { id: 'c1', type: 'function', function: { name: 'look', arguments: '' } }),
      piece(0, { function: { arguments: '{"ye' } }),
      piece(1, { id: 'c2', type: 'function', function: { name: 'rest', arguments: '' } }),
      piece(0, { function: { arguments: 'ar":1}' } }),
      chunkOf({}, 'tool_calls'),
      { ...chunkOf({}), choices: [], usage },
      DONE,
    ],
    { onDelta: (delta) => deltas.push(delta) },
  )
  expect(result).toMatchObject({
    outcome: 'answered',
    received: {
      text: '',
      finishReason: 'tool_calls',
      usage: { input: 9, output: 12 },
      toolCalls: [
        { id: 'c1', name: 'look', arguments: '{"year":1}' },
        { id: 'c2', name: 'rest', arguments: '{}' },
      ],
    },
  })
  expect(deltas).toEqual([
    { kind: 'tool_call', index: 0, id: 'c1', name: 'look', arguments: '' },
    { kind: 'tool_call', index: 0, arguments: '{"ye' },
    { kind: 'tool_call', index: 1, id: 'c2', name: 'rest', arguments: '' },
    { kind: 'tool_call', index: 0, arguments: 'ar":1}' },
  ])
})

test.each([
  ['all at index 0, as at Gemini', { index: 0, id: 'a' }, { index: 0, id: 'b' }],
  ['without an index', { id: 'a' }, { id: 'b' }],
  ['without index and id, as at old Ollama', {}, {}],
])('two tool calls %s are two', async (_case, one, other) => {
  const call = (place: object, name: string) =>
    chunkOf({ tool_calls: [{ ...place, function: { name, arguments: '{}' } }] })
  const result = await answerTo([call(one, 'look'), call(other, 'rest'), chunkOf({}, 'stop'), DONE])
  expect(result.received.toolCalls.map(({ name, arguments: json }) => [name, json])).toEqual([
    ['look', '{}'],
    ['rest', '{}'],
  ])
  expect(new Set(result.received.toolCalls.map(({ id }) => id)).size).toBe(2)
  expect(result.received.finishReason).toBe('tool_calls')
})

test('pieces of one call under ever new ids, as of old vLLM, stay one call', async () => {
  const piece = (id: string, call: object) => chunkOf({ tool_calls: [{ index: 0, id, function: call }] })
  const result = await answerTo([
    piece('x1', { name: 'look' }),
    piece('x2', { arguments: '{"a"' }),
    piece('x3', { arguments: ':1}' }),
    chunkOf({}, 'tool_calls'),
  ])
  expect(result.received.toolCalls).toEqual([{ id: 'x1', name: 'look', arguments: '{"a":1}' }])
})

test('a tool call without a name is no answer, and its usage is kept', async () => {
  const piece = chunkOf({ tool_calls: [{ index: 0, id: 'c1', function: { arguments: '{}' } }] })
  const result = await answerTo([piece, chunkOf({}, 'tool_calls', { usage })])
  expect(result).toMatchObject({
    outcome: 'malformed_answer',
    received: { finishReason: 'tool_calls', usage: { output: 12 } },
  })
})

test.each([['reasoning_content'], ['reasoning']])(
  'reasoning sent as %s is counted, and is no part of the answer',
  async (field) => {
    const deltas: AnswerDelta[] = []
    const result = await answerTo(
      [
        chunkOf({ [field]: 'Hmm, ' }),
        chunkOf({ [field]: 'müh' }),
        chunkOf({ content: '1711' }),
        chunkOf({}, 'stop'),
        DONE,
      ],
      { onDelta: (delta) => deltas.push(delta) },
    )
    expect(result.received).toMatchObject({ text: '1711', reasoningBytes: 9 })
    expect(deltas).toEqual([{ kind: 'text', text: '1711' }])
  },
)

test('reasoning that is sent under both names counts once, and as Mistral sends it', async () => {
  const both = await answerTo([
    chunkOf({ reasoning: 'abc', reasoning_content: 'abc' }),
    chunkOf({ content: 'x' }, 'stop'),
  ])
  expect(both.received.reasoningBytes).toBe(3)
  const parts = [
    { type: 'thinking', thinking: [{ type: 'text', text: 'abcd' }] },
    { type: 'text', text: 'x' },
  ]
  const mistral = await answerTo([chunkOf({ content: parts }, 'stop')])
  expect(mistral.received).toMatchObject({ text: 'x', reasoningBytes: 4 })
})

test('the provider’s id is told once, as soon as it comes', async () => {
  const ids: string[] = []
  const upstream = await useUpstream((response) => {
    response.setHeader('x-generation-id', 'gen-7')
    sendEvents(response, [chunkOf({ content: 'x' }), chunkOf({}, 'stop'), DONE])
  })
  const result = await ask(upstream, { onRequestId: (id) => ids.push(id) })
  expect(ids).toEqual(['gen-7'])
  expect(result.received.providerRequestId).toBe('gen-7')
})

test('a listener that fails loses its pieces, and not the answer', async () => {
  const fail = () => {
    throw new Error('gone')
  }
  const result = await answerTo([chunkOf({ content: 'a' }), chunkOf({ content: 'b' }, 'stop')], {
    onDelta: fail,
    onRequestId: fail,
  })
  expect(result).toMatchObject({ outcome: 'answered', received: { text: 'ab', providerRequestId: 'chatcmpl-1' } })
})

test.each([
  ['stop', 'stop'],
  ['length', 'length'],
  ['eos', 'stop'],
  ['function_call', 'tool_calls'],
  ['insufficient_system_resource', 'insufficient_system_resource'],
])('the finish reason %s is told as %s', async (reason, expected) => {
  expect((await answerTo([chunkOf({ content: 'x' }, reason)])).received.finishReason).toBe(expected)
})

test('a refusal of the model is a filtered answer, and billed', async () => {
  const result = await answerTo([chunkOf({ refusal: 'I cannot.' }), chunkOf({}, 'stop', { usage })])
  expect(result).toMatchObject({
    outcome: 'content_filter',
    detail: 'I cannot.',
    received: { finishReason: 'content_filter', usage: { output: 12 } },
  })
})

test('an empty answer is an answer, but not where JSON was asked for', async () => {
  const events = [chunkOf({ content: '' }), chunkOf({}, 'stop', { usage })]
  expect(await answerTo(events)).toMatchObject({ outcome: 'answered', received: { text: '' } })
  const body = { messages: [], schema: { name: 's', schema: { type: 'object' } } }
  expect(await answerTo(events, { body })).toMatchObject({
    outcome: 'malformed_answer',
    received: { usage: { output: 12 } },
  })
})

const message = { role: 'assistant', content: 'In 1711.', reasoning_content: 'abc' }

test.each([
  ['asked for', false],
  ['not asked for', true],
])('an answer in one piece that was %s is taken', async (_case, streaming) => {
  const deltas: AnswerDelta[] = []
  const toolCalls = [
    { id: 'a', type: 'function', function: { name: 'look', arguments: '{"x":1}' } },
    { id: 'b', type: 'function', function: { name: 'look', arguments: '{"x":2}' } },
  ]
  const choices = [{ index: 0, message: { ...message, tool_calls: toolCalls }, finish_reason: 'tool_calls' }]
  const result = await wholeAnswerTo(
    { id: 'chatcmpl-9', object: 'chat.completion', choices, usage },
    { streaming, onDelta: (delta) => deltas.push(delta) },
  )
  expect(result).toMatchObject({
    outcome: 'answered',
    received: {
      text: 'In 1711.',
      reasoningBytes: 3,
      providerRequestId: 'chatcmpl-9',
      usage: { input: 9, output: 12 },
      toolCalls: [
        { id: 'a', name: 'look', arguments: '{"x":1}' },
        { id: 'b', name: 'look', arguments: '{"x":2}' },
      ],
    },
  })
  expect(deltas).toHaveLength(3)
})

test.each([
  [{ object: 'chat.completion', choices: [] }, 'cut_stream'],
  [{ nothing: 'of the kind' }, 'malformed_answer'],
  [null, 'malformed_answer'],
  [[], 'malformed_answer'],
  [{ error: { message: 'slow down', code: 429 } }, 'rate_limited'],
  [
    { choices: [{ message: { content: '' }, error: { code: 502, message: 'down' }, finish_reason: 'error' }] },
    'network_after_send',
  ],
])('the one piece %j is %s', async (body, outcome) => {
  expect(await wholeAnswerTo(body)).toMatchObject({ outcome })
  expect(await wholeAnswerTo(body, { streaming: false })).toMatchObject({ outcome })
})

test('an answer that its model has ended is whole, however its connection ends', async () => {
  const upstream = await useUpstream((response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write(`data: ${JSON.stringify(chunkOf({ content: 'In 1711.' }, 'stop'))}\n\n`, () => response.destroy())
  })
  expect(await ask(upstream, {})).toMatchObject({ outcome: 'answered', received: { text: 'In 1711.', usage: null } })
})

test('an answer of many pieces is put together in linear time', async () => {
  const pieces = 100_000
  const event = `data: ${JSON.stringify(chunkOf({ content: 'wörd ' }))}\n\n`
  const upstream = await useUpstream((response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write(event.repeat(pieces))
    response.end(`data: ${JSON.stringify(chunkOf({}, 'stop'))}\n\n`)
  })
  const result = await ask(upstream, {})
  expect(result.outcome).toBe('answered')
  expect(result.received.text.length).toBe(5 * pieces)
})

test('an answer that never ends is cut off, and so is its connection', async () => {
  let isClosed = false
  const upstream = await useUpstream((response) => {
    response.on('close', () => (isClosed = true))
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    const event = `data: ${JSON.stringify(chunkOf({ content: 'x'.repeat(2_000_000) }))}\n\n`
    const write = () => {
      if (!response.destroyed && response.write(event)) setImmediate(write)
    }
    response.on('drain', write)
    write()
  })
  const result = await ask(upstream, {})
  expect(result).toMatchObject({ outcome: 'malformed_answer', detail: expect.stringContaining('more than 16777216') })
  await pollUntil(() => isClosed, { what: 'the closed connection', deadlineMs: 500, intervalMs: 5 })
})
