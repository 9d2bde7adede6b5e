import { anthropicMessageRequestSchema } from '#contracts/anthropic-messages.ts'
import { catalogModelSchema } from '#contracts/catalog.ts'
import type { ChatBody } from '#contracts/chat.ts'
import { MessageWriter } from '#src/gateway/anthropic/message-answer.ts'
import { toMessageBody } from '#src/gateway/anthropic/message-request.ts'
import { expect, test } from 'vitest'
import { gatewayCatalog } from '#test/support/gateway-models.ts'

function bodyOf(change: object, model = 'steady'): ChatBody {
  const found = gatewayCatalog.models.find(({ name }) => name === model)
  const asked = { model, max_tokens: 20_000, messages: [{ role: 'user', content: 'hello' }], ...change }
  return toMessageBody(anthropicMessageRequestSchema.parse(asked), catalogModelSchema.parse(found))
}

test('results of tools come first, their images after them, then what the user says', () => {
  const image = { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'AAAA' } }
  const { messages } = bodyOf({
    system: [
      { type: 'text', text: 'Be short.', cache_control: { type: 'ephemeral' } },
      { type: 'text', text: 'Be kind.' },
    ],
    messages: [
      { role: 'user', content: 'look' },
      {
        role: 'assistant',
        content: [
          { type: 'thinking', thinking: 'hm', signature: 'x' },
          { type: 'text', text: 'I look.' },
          { type: 'tool_use', id: 'toolu_1', name: 'look', input: { at: 1 } },
          { type: 'tool_use', id: 'toolu_2', name: 'look', input: {} },
        ],
      },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'What is it?' },
          { type: 'tool_result', tool_use_id: 'toolu_1', content: [{ type: 'text', text: 'seen' }, image] },
          { type: 'tool_result', tool_use_id: 'toolu_2', is_error: true },
        ],
      },
    ],
  })
  expect(messages).toEqual([
    { role: 'system', content: 'Be short.\nBe kind.' },
    { role: 'user', content: 'look' },
    {
      role: 'assistant',
      content: 'I look.',
      toolCalls: [
        { id: 'toolu_1', name: 'look', arguments: '{"at":1}' },
        { id: 'toolu_2', name: 'look', arguments: '{}' },
      ],
    },
    { role: 'tool', toolCallId: 'toolu_1', content: 'seen\n[image]' },
    { role: 'tool', toolCallId: 'toolu_2', content: '', isError: true },
    {
      role: 'user',
      content: [
        { type: 'image', url: 'data:image/png;base64,AAAA' },
        { type: 'text', text: 'What is it?' },
      ],
    },
  ])
})

test('one call of a tool at most is asked for beside the choice of tools', () => {
  const tools = [{ name: 'look', input_schema: { type: 'object' } }]
  const tool_choice = { type: 'tool', name: 'look', disable_parallel_tool_use: true }
  expect(bodyOf({ tools, tool_choice })).toMatchObject({ toolChoice: { name: 'look' }, parallelToolCalls: false })
})

test.each([
  [{}, 'thinker', undefined],
  [{ output_config: { effort: 'low' } }, 'thinker', 'low'],
  [{ thinking: { type: 'adaptive' } }, 'thinker', 'high'],
  [{ thinking: { type: 'adaptive', budget_tokens: 0 }, output_config: { effort: 'xhigh' } }, 'thinker', 'xhigh'],
  [{ thinking: { type: 'disabled' }, output_config: { effort: 'high' } }, 'thinker', undefined],
  [{ thinking: { type: 'enabled', budget_tokens: 1_024 } }, 'thinker', 'low'],
  [{ thinking: { type: 'enabled', budget_tokens: 8_000 } }, 'thinker', 'medium'],
  [{ thinking: { type: 'enabled', budget_tokens: 16_384 } }, 'thinker', 'high'],
  [{ thinking: { type: 'adaptive' }, output_config: { effort: 'max' } }, 'steady', undefined],
])('%j of the model %s asks for the effort %s', (change, model, effort) => {
  expect(bodyOf(change, model).reasoningEffort).toBe(effort)
})

test('what changes neither price nor answer is dropped', () => {
  const plain = bodyOf({})
  const dropped = {
    metadata: { team: 'red', user_id: '' },
    cache_control: { type: 'ephemeral' },
    service_tier: 'auto',
    context_management: { edits: [{ type: 'clear_thinking_20251015', keep: 'all' }] },
    mcp_servers: [],
    container: null,
  }
  expect(bodyOf(dropped)).toEqual(plain)
  expect(bodyOf({ ...dropped, top_k: 4 })).toEqual({ ...plain, parameters: { top_k: 4 } })
  const hints = { user_id: 'u', thinking: 'disabled' }
  expect(bodyOf({ metadata: { user_id: 'u' }, thinking: { type: 'disabled' } })).toEqual({ ...plain, hints })
})

test('each piece of an answer goes to its own block, one open at a time', () => {
  const sent: { readonly name: string | undefined; readonly data: object }[] = []
  const stream = { send: (data: object, name?: string) => void sent.push({ name, data }) }
  const writer = new MessageWriter(stream, { model: 'm', callId: 'c', inputTokens: 7 })
  writer.piece({ kind: 'text', text: 'I ' })
  writer.piece({ kind: 'text', text: 'look.' })
  writer.piece({ kind: 'tool_call', index: 0, id: 'toolu_1', name: 'look', arguments: '' })
  writer.piece({ kind: 'tool_call', index: 0, arguments: '{"at":' })
  writer.piece({ kind: 'tool_call', index: 1, id: 'toolu_2', name: 'look', arguments: '{}' })
  writer.piece({ kind: 'tool_call', index: 0, arguments: '1}' })
  writer.end({
    callId: 'c',
    answer: { text: 'I look.', finishReason: 'tool_calls' },
    receipt: undefined,
    remaining: undefined,
    isReplayed: false,
  })
  expect(sent.every(({ name, data }) => 'type' in data && data.type === name)).toBe(true)
  const told = sent.map(({ data }) => data)
  expect(told).toMatchObject([
    { type: 'message_start', message: { id: 'msg_c', usage: { input_tokens: 7 } } },
    { type: 'ping' },
    { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
    { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'I ' } },
    { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'look.' } },
    { type: 'content_block_stop', index: 0 },
    { type: 'content_block_start', index: 1, content_block: { type: 'tool_use', id: 'toolu_1', input: {} } },
    { type: 'content_block_delta', index: 1, delta: { type: 'input_json_delta', partial_json: '{"at":' } },
    { type: 'content_block_stop', index: 1 },
    { type: 'content_block_start', index: 2, content_block: { type: 'tool_use', id: 'toolu_2' } },
    { type: 'content_block_delta', index: 2, delta: { partial_json: '{}' } },
    { type: 'content_block_delta', index: 1, delta: { partial_json: '1}' } },
    { type: 'content_block_stop', index: 2 },
    { type: 'message_delta', delta: { stop_reason: 'tool_use' }, purser: { cost: '0' } },
    { type: 'message_stop' },
  ])
})
