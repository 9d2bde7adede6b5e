import Anthropic from '@anthropic-ai/sdk'
import { countTokens } from 'gpt-tokenizer/encoding/o200k_base'
import { describe, expect, test } from 'vitest'
import { readAll, useSandbox } from '#test/support/sandbox.ts'

const model = 'sandbox-steady'
const content = '<passage id="p">The Vrell pump starts with a lever.</passage>How does the Vrell pump start?'
const answer = 'The Vrell pump starts with a lever. [p]'
const messages = [{ role: 'user' as const, content }]
const promptTokens = 3 + 3 + countTokens('user') + countTokens(content)
const ask = { model, messages, max_tokens: 200 }

const tool = {
  name: 'search',
  description: 'Searches the notes.',
  input_schema: {
    type: 'object' as const,
    properties: { query: { type: 'string', description: 'the search query' } },
    required: ['query'],
  },
}

describe('the sandbox speaks to the Anthropic client', () => {
  test('in one body', async () => {
    const { anthropic, readLog } = await useSandbox()
    const message = await anthropic.messages.create(ask)
    expect(message).toMatchObject({
      type: 'message',
      role: 'assistant',
      model,
      content: [{ type: 'text', text: answer }],
      stop_reason: 'end_turn',
      stop_sequence: null,
      usage: { input_tokens: promptTokens, output_tokens: countTokens(answer), cache_read_input_tokens: 0 },
    })
    const [logged] = await readLog()
    expect(message.id).toBe(`msg_${logged?.id}`)
    expect(logged).toMatchObject({ finished: true, usage: { promptTokens, completionTokens: countTokens(answer) } })
  })

  test('as a stream, event by event', async () => {
    const { anthropic } = await useSandbox()
    const events = await readAll(await anthropic.messages.create({ ...ask, stream: true }))
    const types = events.map((event) => event.type)
    expect([types[0], types[1]]).toEqual(['message_start', 'content_block_start'])
    expect(types.slice(-3)).toEqual(['content_block_stop', 'message_delta', 'message_stop'])
    expect(types.slice(2, -3).every((type) => type === 'content_block_delta')).toBe(true)
    expect(events[0]).toMatchObject({ message: { usage: { input_tokens: promptTokens, output_tokens: 0 } } })
    expect(events.at(-2)).toMatchObject({
      delta: { stop_reason: 'end_turn' },
      usage: { input_tokens: promptTokens, output_tokens: countTokens(answer) },
    })
  })

  test("which the client's own collector puts together", async () => {
    const { anthropic } = await useSandbox()
    const message = await anthropic.messages.stream(ask).finalMessage()
    expect(message.content).toMatchObject([{ type: 'text', text: answer }])
    expect(message.usage.output_tokens).toBe(countTokens(answer))
  })

  test('and stops at max_tokens, and at a stop sequence', async () => {
    const { anthropic } = await useSandbox()
    const short = await anthropic.messages.create({ ...ask, max_tokens: 4 })
    expect(short).toMatchObject({ stop_reason: 'max_tokens', usage: { output_tokens: 4 } })
    const stopped = await anthropic.messages.create({ ...ask, stop_sequences: ['nobody', 'starts'] })
    expect(stopped).toMatchObject({
      stop_reason: 'stop_sequence',
      stop_sequence: 'starts',
      content: [{ text: 'The Vrell pump ' }],
      usage: { output_tokens: countTokens('The Vrell pump ') },
    })
  })

  test('in JSON of a schema', async () => {
    const { anthropic } = await useSandbox()
    const schema = { type: 'object', properties: { answer: { type: 'string' } }, required: ['answer'] }
    const message = await anthropic.messages.create({
      ...ask,
      output_config: { format: { type: 'json_schema', schema } },
    })
    expect(message.content).toMatchObject([{ text: JSON.stringify({ answer }) }])
  })
})

describe('tools', () => {
  test.each([false, true])(
    'are called when they must be, and when the words name them (stream: %s)',
    async (isStream) => {
      const { anthropic } = await useSandbox()
      const send = async (extra: Partial<Anthropic.MessageCreateParamsNonStreaming>): Promise<Anthropic.Message> => {
        const params = { ...ask, tools: [tool], ...extra }
        return isStream ? anthropic.messages.stream(params).finalMessage() : anthropic.messages.create(params)
      }
      const forced = await send({ tool_choice: { type: 'tool', name: 'search' } })
      expect(forced.stop_reason).toBe('tool_use')
      expect(forced.content).toMatchObject([
        { type: 'tool_use', name: 'search', input: { query: expect.stringMatching(/Vrell/u) } },
      ])
      expect((await send({ tool_choice: { type: 'any' } })).stop_reason).toBe('tool_use')
      expect((await send({})).stop_reason).toBe('end_turn')
      const named = await send({ messages: [{ role: 'user', content: 'Use search to find the Vrell pump.' }] })
      expect(named.stop_reason).toBe('tool_use')
    },
  )

  test('whose results are then quoted', async () => {
    const { anthropic } = await useSandbox()
    const message = await anthropic.messages.create({
      ...ask,
      tools: [tool],
      messages: [
        { role: 'user', content: 'Use search: how heavy is the Vrell pump?' },
        {
          role: 'assistant',
          content: [{ type: 'tool_use', id: 'toolu_1', name: 'search', input: { query: 'Vrell' } }],
        },
        { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'toolu_1', content: '{"kilograms": 9}' }] },
      ],
    })
    expect(message).toMatchObject({ stop_reason: 'end_turn', content: [{ type: 'text', text: '{"kilograms": 9}' }] })
  })

  test('of the provider itself are counted, and billed by use', async () => {
    const { anthropic, readLog } = await useSandbox({
      config: { models: { [model]: { prices: { input: '0', output: '0', toolFees: { web_search: '0.01' } } } } },
    })
    const message = await anthropic.messages.create({
      ...ask,
      tools: [{ type: 'web_search_20250305', name: 'web_search' }],
    })
    expect(message.usage.server_tool_use).toMatchObject({ web_search_requests: 1 })
    expect((await readLog())[0]?.billed).toBe('0.010000000')
  })
})

describe('what else a prompt and an answer may have', () => {
  test('images count a fixed number of tokens, and may cost a fee', async () => {
    const { anthropic, readLog } = await useSandbox({
      config: { models: { [model]: { prices: { input: '1', output: '0', perImage: '0.5' }, imageTokens: 100 } } },
    })
    const image = {
      type: 'image' as const,
      source: { type: 'base64' as const, media_type: 'image/png' as const, data: 'AAAA' },
    }
    const message = await anthropic.messages.create({
      ...ask,
      messages: [{ role: 'user', content: [image, image, { type: 'text', text: content }] }],
    })
    expect(message.content).toMatchObject([{ text: answer }])
    expect(message.usage.input_tokens).toBe(promptTokens + 200)
    expect((await readLog())[0]?.billed).toBe(`1.${String((promptTokens + 200) * 1000).padStart(9, '0')}`)
  })

  test('cache_control of the whole request marks its end, and a longer talk reads what was written there', async () => {
    const { anthropic } = await useSandbox()
    const first = { role: 'user', content: 'How heavy is the Vrell pump?' } as const
    const send = async (messages: Anthropic.MessageParam[]): Promise<Anthropic.Usage> =>
      (await anthropic.messages.create({ ...ask, cache_control: { type: 'ephemeral' }, messages })).usage
    const { cache_creation_input_tokens: written } = await send([first])
    expect(written).toBeGreaterThan(5)
    const answer = { role: 'assistant', content: 'Nine kilograms.' } as const
    const usage = await send([first, answer, { role: 'user', content: 'Sure?' }])
    expect(usage.cache_read_input_tokens).toBe(written)
    expect(usage.cache_creation_input_tokens).toBeGreaterThan(0)
  })

  test('cache_control: written at first sight, read afterwards, and each at its price', async () => {
    const { anthropic, readLog } = await useSandbox({
      config: { models: { [model]: { prices: { input: '10', cachedInput: '1', cacheWrite: '12', output: '0' } } } },
    })
    const long = `Notes. ${'The Vrell pump weighs nine kilograms. '.repeat(30)}`
    const send = async (question: string): Promise<Anthropic.Usage> => {
      const message = await anthropic.messages.create({
        ...ask,
        system: [{ type: 'text', text: long, cache_control: { type: 'ephemeral' } }],
        messages: [{ role: 'user', content: question }],
      })
      return message.usage
    }
    const marked = 3 + countTokens('system') + countTokens(long)
    const rest = 3 + 3 + countTokens('user') + countTokens('How heavy?')
    expect(await send('How heavy?')).toMatchObject({
      input_tokens: rest,
      cache_creation_input_tokens: marked,
      cache_read_input_tokens: 0,
      cache_creation: { ephemeral_5m_input_tokens: marked },
    })
    expect(await send('How heavy?')).toMatchObject({
      input_tokens: rest,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: marked,
    })
    const billed = (await readLog()).map((request) => request.billed)
    const asUsd = (micro: number): string => `0.${String(micro * 1000).padStart(9, '0')}`
    expect(billed).toEqual([asUsd(10 * rest + 12 * marked), asUsd(10 * rest + marked)])
  })

  test.each([false, true])(
    'thinking is a block of its own, in output tokens and within max_tokens (stream: %s)',
    async (isStream) => {
      const { anthropic } = await useSandbox()
      const send = async (extra: object): Promise<Anthropic.Message> => {
        const params = { ...ask, model: 'sandbox-thinker', max_tokens: 2000, ...extra }
        return isStream ? anthropic.messages.stream(params).finalMessage() : anthropic.messages.create(params)
      }
      const thought = await send({ thinking: { type: 'enabled', budget_tokens: 1024 } })
      expect(thought.content).toMatchObject([
        { type: 'thinking', signature: expect.stringMatching(/./u) },
        { type: 'text', text: answer },
      ])
      expect(thought.content[0]).toMatchObject({ thinking: expect.stringMatching(/Vrell/u) })
      expect(thought.usage.output_tokens).toBe(48 + countTokens(answer))
      expect(thought.usage.output_tokens_details).toEqual({ thinking_tokens: 48 })
      const omitted = await send({ thinking: { type: 'adaptive', display: 'omitted' } })
      expect(omitted.content).toMatchObject([{ type: 'thinking', thinking: '' }, { type: 'text' }])
      const none = await send({})
      expect(none.content).toHaveLength(1)
      expect(none.usage.output_tokens).toBe(countTokens(answer))
    },
  )
})

describe('errors come in the shape of Anthropic', () => {
  test.each([
    ['400', 400, 'invalid_request_error'],
    ['401', 401, 'authentication_error'],
    ['402', 402, 'billing_error'],
    ['404', 404, 'not_found_error'],
    ['429', 429, 'rate_limit_error'],
    ['500', 500, 'api_error'],
    ['529', 529, 'overloaded_error'],
    ['quota', 400, 'invalid_request_error'],
    ['context', 400, 'invalid_request_error'],
  ])('%s: %i %s', async (word, status, type) => {
    const { anthropic, readLog } = await useSandbox()
    await expect(anthropic.messages.create({ ...ask, model: `${model}:${word}` })).rejects.toMatchObject({
      status,
      type,
    })
    expect(await readLog()).toMatchObject([{ status, begun: false }])
  })

  test('those that providers word in a way of their own', async () => {
    const { anthropic } = await useSandbox()
    await expect(anthropic.messages.create({ ...ask, model: `${model}:quota` })).rejects.toThrow(
      /credit balance is too low/u,
    )
    await expect(anthropic.messages.create({ ...ask, model: `${model}:context` })).rejects.toThrow(
      /prompt is too long/u,
    )
  })

  test('a wrong key, a missing max_tokens, a strange block', async () => {
    const { url, anthropic } = await useSandbox()
    const stranger = new Anthropic({ baseURL: new URL('/', url).origin, apiKey: 'wrong', maxRetries: 0 })
    await expect(stranger.messages.create(ask)).rejects.toMatchObject({ status: 401, type: 'authentication_error' })
    const send = async (body: object): Promise<unknown> => anthropic.post('/v1/messages', { body })
    await expect(send({ model, messages })).rejects.toThrow(/max_tokens: Field required/u)
    const strange = [{ role: 'user', content: [{ type: 'smell' }] }]
    await expect(send({ ...ask, messages: strange })).rejects.toThrow(/messages.0.content.0.type.*smell/u)
    await expect(send({ ...ask, tool_choice: { type: 'tool', name: 'none' } })).rejects.toThrow(/tool_choice/u)
    await expect(send({ ...ask, thinking: { type: 'enabled', budget_tokens: 10 } })).rejects.toThrow(/1024/u)
  })

  test('an error inside a stream, and a stream that is cut', async () => {
    const { anthropic } = await useSandbox()
    const overloaded = await anthropic.messages.create({ ...ask, model: `${model}:error-2`, stream: true })
    await expect(readAll(overloaded)).rejects.toMatchObject({ type: 'overloaded_error' })
    const cut = await anthropic.messages.create({ ...ask, model: `${model}:cut-2`, stream: true })
    await expect(readAll(cut)).rejects.toThrow()
  })

  test('filtered content is a refusal', async () => {
    const { anthropic } = await useSandbox()
    expect(await anthropic.messages.create({ ...ask, model: `${model}:filter` })).toMatchObject({
      stop_reason: 'refusal',
    })
    expect(await anthropic.messages.create({ ...ask, model: `${model}:empty` })).toMatchObject({ content: [] })
  })
})
