import type { ProviderChatRequest } from '#providers/provider.ts'
import { expect, test } from 'vitest'
import { askForMessage, messageOf, textBlock } from '../support/anthropic-message.ts'

test('everything that a chat can ask for arrives as the Messages API has it, and its hints stay behind', async () => {
  const parameters = { type: 'object', properties: { year: { type: 'integer' } } }
  const { request } = await askForMessage(
    messageOf(textBlock(0, 'x')),
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
          { role: 'tool', toolCallId: 'c2', content: '', isError: true },
          { role: 'user', content: 'And now?' },
        ],
        tools: [{ name: 'look', description: 'Looks.', parameters }],
        toolChoice: 'auto',
        parallelToolCalls: false,
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
          { type: 'tool_result', tool_use_id: 'c2', content: '', is_error: true },
          { type: 'text', text: 'And now?' },
        ],
      },
    ],
    stream: true,
    tools: [{ name: 'look', description: 'Looks.', input_schema: parameters }],
    tool_choice: { type: 'auto', disable_parallel_tool_use: true },
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
  const { request } = await askForMessage(messageOf(textBlock(0, 'x')), { body: { messages: [], tools, toolChoice } })
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
  ['claude-sonnet-5', 'none', 500, { type: 'disabled' }],
  ['claude-opus-4-5', 'none', 8_000, undefined],
] as const)(
  '%s with %s effort and %d output tokens thinks as %j',
  async (upstreamModel, reasoningEffort, maxOutputTokens, thinking) => {
    const { request } = await askForMessage(messageOf(textBlock(0, 'x')), {
      upstreamModel,
      maxOutputTokens,
      body: { messages: [], reasoningEffort },
    })
    expect(request?.body).toMatchObject({ max_tokens: maxOutputTokens })
    if (thinking) expect(request?.body).toMatchObject({ thinking })
    else expect(request?.body).not.toHaveProperty('thinking')
  },
)

test('a client of messages that wants no thoughts is given none, and its model no effort', async () => {
  const body = { messages: [], hints: { thinking: 'disabled' } }
  const { request } = await askForMessage(messageOf(textBlock(0, 'x')), { upstreamModel: 'claude-sonnet-5', body })
  expect(request?.body).toMatchObject({ thinking: { type: 'disabled' } })
  expect(request?.body).not.toHaveProperty('output_config')
})

test('a tool that must be called goes before thinking, which excludes it', async () => {
  const tools = [{ name: 'look', parameters: { type: 'object' } }]
  const body: ProviderChatRequest['body'] = { messages: [], tools, toolChoice: 'required', reasoningEffort: 'high' }
  const { request } = await askForMessage(messageOf(textBlock(0, 'x')), { body })
  expect(request?.body).not.toHaveProperty('thinking')
  expect(request?.body).not.toHaveProperty('output_config')
})

test.each([
  ['claude-sonnet-4-5', 'its result', undefined],
  ['claude-sonnet-4-5', 'its result and a word of the user', undefined],
  ['claude-sonnet-4-5', 'an answer after it', { type: 'enabled' }],
  ['claude-opus-4-6', 'its result', { type: 'adaptive' }],
] as const)(
  '%s behind a call of a tool and %s, without what it thought then, thinks as %j',
  async (model, behind, thinking) => {
    const tools = [{ name: 'look', parameters: { type: 'object' } }]
    const more: ProviderChatRequest['body']['messages'] =
      behind === 'its result'
        ? []
        : behind === 'an answer after it'
          ? [
              { role: 'assistant', content: 'A mill.' },
              { role: 'user', content: 'And now?' },
            ]
          : [{ role: 'user', content: 'And now?' }]
    const messages: ProviderChatRequest['body']['messages'] = [
      { role: 'user', content: 'What is this?' },
      { role: 'assistant', content: '', toolCalls: [{ id: 'c1', name: 'look', arguments: '{}' }] },
      { role: 'tool', toolCallId: 'c1', content: 'a mill' },
      ...more,
    ]
    const body: ProviderChatRequest['body'] = { messages, tools, reasoningEffort: 'high' }
    const asked = { upstreamModel: model, maxOutputTokens: 8_000, body }
    const { request } = await askForMessage(messageOf(textBlock(0, 'x')), asked)
    if (thinking) expect(request?.body).toMatchObject({ thinking })
    else expect(request?.body).not.toHaveProperty('thinking')
  },
)

test("what has a name of OpenAI's is said in the API's own", async () => {
  const tools = [{ name: 'look', parameters: { type: 'object' }, strict: true }]
  const sent = async (more: Partial<ProviderChatRequest['body']>) =>
    (await askForMessage(messageOf(textBlock(0, 'x')), { body: { messages: [], tools, ...more } })).request?.body
  expect(await sent({ parameters: { user: 'u1', top_k: 4 }, parallelToolCalls: false })).toMatchObject({
    metadata: { user_id: 'u1' },
    tool_choice: { type: 'auto', disable_parallel_tool_use: true },
    tools: [{ name: 'look', strict: true }],
    top_k: 4,
  })
  expect(await sent({ parameters: { metadata: { user_id: 'u2' } } })).toMatchObject({ metadata: { user_id: 'u2' } })
  expect(await sent({ hints: { user: 'u3' } })).toMatchObject({ metadata: { user_id: 'u3' } })
  expect(await sent({ hints: { user_id: 'u4', safety_identifier: 's' } })).toMatchObject({
    metadata: { user_id: 'u4' },
  })
  const plain = await sent({ parameters: { metadata: { team: 'red' } } })
  for (const name of ['metadata', 'user', 'tool_choice']) expect(plain).not.toHaveProperty(name)
})
