import type { ChatBody } from '#contracts/chat.ts'
import { openAiResponseRequestSchema } from '#contracts/openai-responses.ts'
import { ResponseWriter, toResponse } from '#src/gateway/openai/responses-answer.ts'
import { toResponseBody } from '#src/gateway/openai/responses-request.ts'
import { expect, test } from 'vitest'

const asked = openAiResponseRequestSchema.parse({ model: 'm', input: 'hello' })

function bodyOf(change: object): ChatBody {
  return toResponseBody(openAiResponseRequestSchema.parse({ model: 'm', input: 'hello', ...change }))
}

test('what a model says and calls in one turn is one message; images of outputs come after all of them', () => {
  const input = [
    { role: 'user', content: 'look twice' },
    { type: 'message', role: 'assistant', id: 'msg_1', content: [{ type: 'output_text', text: 'I look.' }] },
    { type: 'function_call', call_id: 'c1', name: 'look', arguments: '{"at":1}' },
    { type: 'function_call', call_id: 'c2', name: 'look', arguments: '{}' },
    {
      type: 'function_call_output',
      call_id: 'c1',
      output: [{ type: 'input_image', image_url: 'https://example.com/mill.png', detail: 'original' }],
    },
    { type: 'function_call_output', call_id: 'c2', output: 'a mill' },
    { role: 'developer', content: 'Be kind.' },
    { role: 'user', content: 'What is it?' },
  ]
  expect(bodyOf({ input, instructions: 'Be short.' }).messages).toEqual([
    { role: 'system', content: 'Be short.' },
    { role: 'user', content: 'look twice' },
    {
      role: 'assistant',
      content: 'I look.',
      toolCalls: [
        { id: 'c1', name: 'look', arguments: '{"at":1}' },
        { id: 'c2', name: 'look', arguments: '{}' },
      ],
    },
    { role: 'tool', toolCallId: 'c1', content: '[image]' },
    { role: 'tool', toolCallId: 'c2', content: 'a mill' },
    { role: 'user', content: [{ type: 'image', url: 'https://example.com/mill.png', detail: 'high' }] },
    { role: 'system', content: 'Be kind.' },
    { role: 'user', content: 'What is it?' },
  ])
})

test('what changes neither price nor answer is dropped', () => {
  const dropped = {
    store: false,
    truncation: 'disabled',
    service_tier: 'auto',
    include: ['reasoning.encrypted_content'],
    max_tool_calls: 3,
    client_metadata: { session: 's' },
    metadata: { for: 'test' },
    reasoning: { summary: 'auto' },
  }
  expect(bodyOf(dropped)).toEqual(bodyOf({}))
  expect(bodyOf({ prompt_cache_key: 'k', safety_identifier: 7 }).hints).toEqual({ prompt_cache_key: 'k' })
  expect(() => bodyOf({ reasoning: { mode: 'pro' } })).toThrow('is not standard')
  expect(bodyOf({ reasoning: { mode: 'standard' } })).toEqual(bodyOf({}))
  const hints = { prompt_cache_retention: '24h', user: 'u' }
  expect(bodyOf(hints).hints).toEqual(hints)
  expect(bodyOf({ parallel_tool_calls: false, reasoning: { effort: 'xhigh' } })).toMatchObject({
    parallelToolCalls: false,
    reasoningEffort: 'xhigh',
  })
})

test('functions of a namespace carry it in their names, there and back', () => {
  const look = { type: 'function', name: 'look', strict: false, parameters: { type: 'object' } }
  const tools = [look, { type: 'namespace', name: 'eyes', description: 'Eyes.', tools: [look] }]
  const input = [{ type: 'function_call', call_id: 'c1', namespace: 'eyes', name: 'look', arguments: '{}' }]
  expect(bodyOf({ tools, input })).toMatchObject({
    tools: [{ name: 'look' }, { name: 'eyes__look', strict: false }],
    messages: [{ role: 'assistant', toolCalls: [{ name: 'eyes__look' }] }],
  })
  const request = openAiResponseRequestSchema.parse({ model: 'm', input: 'hello', tools })
  const answer = {
    text: '',
    finishReason: 'tool_calls',
    toolCalls: ['look', 'eyes__look'].map((name) => ({ id: name, name, arguments: '{}' })),
  }
  const given = { callId: 'c', answer, receipt: undefined, remaining: undefined, isReplayed: false }
  expect(toResponse({ asked: request, callId: 'c', createdMs: 0 }, given)).toMatchObject({
    output: [
      { type: 'function_call', name: 'look', call_id: 'look' },
      { type: 'function_call', name: 'look', namespace: 'eyes', call_id: 'eyes__look' },
    ],
  })
})

test('what is not read here is handed on to routes that take it', () => {
  const text = { verbosity: 'low', format: { type: 'json_object' } }
  expect(bodyOf({ text, top_k: 4 }).parameters).toEqual({
    top_k: 4,
    verbosity: 'low',
    response_format: { type: 'json_object' },
  })
})

test('each piece of an answer goes to its own item, and all are closed before the end', () => {
  const sent: object[] = []
  const writer = new ResponseWriter({ send: (data) => void sent.push(data) }, { asked, callId: 'c', createdMs: 5_000 })
  writer.piece({ kind: 'text', text: 'I ' })
  writer.piece({ kind: 'text', text: 'look.' })
  writer.piece({ kind: 'tool_call', index: 0, id: 'call_1', name: 'look', arguments: '{"at":' })
  writer.piece({ kind: 'tool_call', index: 1, id: 'call_2', name: 'look', arguments: '{}' })
  writer.piece({ kind: 'tool_call', index: 0, arguments: '1}' })
  const answer = { text: 'I look.', finishReason: 'tool_calls' }
  const whole = writer.end({ callId: 'c', answer, receipt: undefined, remaining: undefined, isReplayed: false })
  expect(sent).toMatchObject([
    { type: 'response.created', sequence_number: 0 },
    { type: 'response.in_progress', sequence_number: 1 },
    { type: 'response.output_item.added', output_index: 0, item: { type: 'message', content: [] } },
    { type: 'response.content_part.added', output_index: 0, content_index: 0, item_id: 'msg_c_0' },
    { type: 'response.output_text.delta', output_index: 0, delta: 'I ' },
    { type: 'response.output_text.delta', output_index: 0, delta: 'look.' },
    { type: 'response.output_text.done', output_index: 0, text: 'I look.' },
    { type: 'response.content_part.done', output_index: 0, part: { text: 'I look.' } },
    { type: 'response.output_item.done', output_index: 0, item: { id: 'msg_c_0', status: 'completed' } },
    { type: 'response.output_item.added', output_index: 1, item: { id: 'fc_c_1', call_id: 'call_1', arguments: '' } },
    { type: 'response.function_call_arguments.delta', output_index: 1, item_id: 'fc_c_1', delta: '{"at":' },
    { type: 'response.output_item.added', output_index: 2, item: { id: 'fc_c_2', call_id: 'call_2' } },
    { type: 'response.function_call_arguments.delta', output_index: 2, delta: '{}' },
    { type: 'response.function_call_arguments.delta', output_index: 1, delta: '1}' },
    { type: 'response.function_call_arguments.done', output_index: 1, arguments: '{"at":1}' },
    { type: 'response.output_item.done', output_index: 1, item: { status: 'completed' } },
    { type: 'response.function_call_arguments.done', output_index: 2, arguments: '{}' },
    { type: 'response.output_item.done', output_index: 2 },
    { type: 'response.completed', sequence_number: 18, response: whole, purser: { cost: '0' } },
  ])
  expect(whole).toMatchObject({ id: 'resp_c', created_at: 5, status: 'completed', output: [{}, {}, {}] })
})
