import { countTokens } from 'gpt-tokenizer/encoding/o200k_base'
import type OpenAI from 'openai'
import { describe, expect, test } from 'vitest'
import { readAll, type TestSandbox, useSandbox } from '#test/support/sandbox.ts'

type Body = Partial<OpenAI.ChatCompletionCreateParamsNonStreaming>

const model = 'sandbox-steady'
const content = '<passage id="p">The Vrell pump starts with a lever.</passage>How does the Vrell pump start?'
const answer = 'The Vrell pump starts with a lever. [p]'
const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content }]

const tools: OpenAI.ChatCompletionTool[] = ['look_up', 'search'].map((name) => ({
  type: 'function',
  function: { name, parameters: { type: 'object', properties: { query: { type: 'string' } }, required: ['query'] } },
}))

async function ask({ client }: TestSandbox, body: Body = {}): Promise<OpenAI.ChatCompletion> {
  return client.chat.completions.create({ model, messages, ...body })
}

/** What a stream says, put together as its readers do. */
async function collect({ client }: TestSandbox, body: Body) {
  const chunks = await readAll(
    await client.chat.completions.create({
      model,
      messages,
      ...body,
      stream: true,
      stream_options: { include_usage: true },
    }),
  )
  const deltas = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.delta))
  const calls = deltas.flatMap((delta) => delta.tool_calls ?? [])
  return {
    id: calls.map((call) => call.id ?? '').join(''),
    name: calls.map((call) => call.function?.name ?? '').join(''),
    arguments: calls.map((call) => call.function?.arguments ?? '').join(''),
    text: deltas.map((delta) => delta.content ?? '').join(''),
    reasoning: deltas.map((delta) => ('reasoning_content' in delta ? String(delta.reasoning_content) : '')).join(''),
    finishReason: chunks.map((chunk) => chunk.choices[0]?.finish_reason ?? '').join(''),
    usage: chunks.at(-1)?.usage,
  }
}

describe('tools', () => {
  test('are called when a choice names one or requires any, with arguments from the messages', async () => {
    const sandbox = await useSandbox()
    const named = await ask(sandbox, { tools, tool_choice: { type: 'function', function: { name: 'search' } } })
    expect(named.choices).toMatchObject([
      {
        finish_reason: 'tool_calls',
        message: { content: null, tool_calls: [{ type: 'function', function: { name: 'search' } }] },
      },
    ])
    const [call] = named.choices[0]?.message.tool_calls ?? []
    const given = call?.type === 'function' ? call.function.arguments : ''
    expect(JSON.parse(given)).toEqual({ query: expect.stringMatching(/Vrell/u) })
    expect(named.usage?.completion_tokens).toBe(countTokens('search') + countTokens(given))
    const any = await ask(sandbox, { tools, tool_choice: 'required' })
    expect(any.choices[0]?.message.tool_calls).toMatchObject([{ function: { name: 'look_up' } }])
  })

  test('are called when the words of the user name one, and else not', async () => {
    const sandbox = await useSandbox()
    const asked: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'Please Search for the Vrell pump.' }]
    const called = await ask(sandbox, { tools, messages: asked })
    expect(called.choices[0]?.message.tool_calls).toMatchObject([{ function: { name: 'search' } }])
    const unlike: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'This is research_search_x.' }]
    expect((await ask(sandbox, { tools, messages: unlike })).choices[0]?.message.tool_calls).toBeUndefined()
    expect((await ask(sandbox, { tools })).choices[0]?.message.content).toBe(answer)
    const forbidden = await ask(sandbox, { tools, messages: asked, tool_choice: 'none' })
    expect(forbidden.choices[0]?.message.tool_calls).toBeUndefined()
  })

  test('come in pieces in a stream, with the same id, and are the same each time', async () => {
    const sandbox = await useSandbox()
    const body: Body = { tools, tool_choice: 'required' }
    const [whole] = (await ask(sandbox, body)).choices[0]?.message.tool_calls ?? []
    const streamed = await collect(sandbox, body)
    expect(streamed.finishReason).toBe('tool_calls')
    expect(whole).toMatchObject({ id: streamed.id, function: { name: streamed.name, arguments: streamed.arguments } })
    const collected = await sandbox.client.chat.completions
      .stream({ model, messages, tools, tool_choice: 'required' })
      .finalMessage()
    expect(collected.tool_calls).toMatchObject([{ id: streamed.id, function: { arguments: streamed.arguments } }])
  })

  test('whose arguments do not fit are cut, and say so', async () => {
    const cut = await ask(await useSandbox(), { tools, tool_choice: 'required', max_tokens: 5 })
    expect(cut).toMatchObject({ choices: [{ finish_reason: 'length' }], usage: { completion_tokens: 5 } })
  })

  test('whose results are there are quoted, and not called again', async () => {
    const sandbox = await useSandbox()
    const call = {
      id: 'call_1',
      type: 'function' as const,
      function: { name: 'search', arguments: '{"query":"Vrell"}' },
    }
    const answered = async (result: string): Promise<string | null | undefined> => {
      const completion = await ask(sandbox, {
        tools,
        messages: [
          { role: 'system', content: 'The Vrell pump weighs nothing. You are helpful.' },
          { role: 'user', content: 'Search: how much does the Vrell pump weigh?' },
          { role: 'assistant', content: null, tool_calls: [call] },
          { role: 'tool', tool_call_id: 'call_1', content: result },
        ],
      })
      return completion.choices[0]?.message.content
    }
    expect(await answered('It is blue. The Vrell pump weighs nine kilograms.')).toBe(
      'The Vrell pump weighs nine kilograms.',
    )
    expect(await answered('{"kg": 9}')).toBe('{"kg": 9}')
  })

  test.each<[string, object]>([
    ['a tool without a name', { tools: [{ type: 'function', function: {} }] }],
    ['a choice of none of them', { tools, tool_choice: { type: 'function', function: { name: 'fly' } } }],
    ['a choice without tools', { tool_choice: 'required' }],
    ['tools that are no list', { tools: {} }],
  ])('%s: 400', async (_, extra) => {
    await expect(ask(await useSandbox(), extra)).rejects.toMatchObject({ status: 400 })
  })
})

describe('what else a prompt may have', () => {
  test('images count a fixed number of tokens each', async () => {
    const sandbox = await useSandbox()
    const image = { type: 'image_url' as const, image_url: { url: 'data:image/png;base64,AAAA' } }
    const plain = await ask(sandbox)
    const seen = await ask(sandbox, {
      messages: [{ role: 'user', content: [image, { type: 'text', text: content }, image] }],
    })
    expect(seen.choices[0]?.message.content).toBe(answer)
    expect(seen.usage?.prompt_tokens).toBe((plain.usage?.prompt_tokens ?? 0) + 2 * 85)
  })

  test('a model may lack tools or eyes', async () => {
    const prices = { input: '1', output: '1' }
    const sandbox = await useSandbox({ config: { models: { [model]: { prices, tools: false, vision: false } } } })
    await expect(ask(sandbox, { tools })).rejects.toThrow(/does not support tools/u)
    const image = { type: 'image_url' as const, image_url: { url: 'https://example.com/a.png' } }
    await expect(ask(sandbox, { messages: [{ role: 'user', content: [image] }] })).rejects.toThrow(/images/u)
  })

  test('beginnings seen before are cached input at its own price, of the same key and model only', async () => {
    const prices = { input: '10', cachedInput: '1', output: '0' }
    const sandbox = await useSandbox({
      config: { models: { [model]: { prices, cache: true }, plain: { prices } } },
      keys: { default: 'sandbox-key', other: 'other-key' },
    })
    const send = async (question: string, extra: Body = {}) =>
      ask(sandbox, {
        messages: [
          { role: 'system', content: 'A long text. '.repeat(50) },
          { role: 'user', content: question },
        ],
        ...extra,
      })
    const first = await send('One?')
    expect(first.usage?.prompt_tokens_details?.cached_tokens).toBe(0)
    const system = 3 + countTokens('system') + countTokens('A long text. '.repeat(50))
    const second = await send('Two?')
    expect(second.usage?.prompt_tokens_details?.cached_tokens).toBe(system)
    const again = await send('Two?')
    expect(again.usage?.prompt_tokens_details?.cached_tokens).toBe((again.usage?.prompt_tokens ?? 0) - 3)
    expect((await send('One?', { model: 'plain' })).usage?.prompt_tokens_details?.cached_tokens).toBe(0)
    const stranger = sandbox.client.withOptions({ apiKey: 'other-key' })
    const foreign = await ask(
      { ...sandbox, client: stranger },
      { messages: [{ role: 'system', content: 'A long text. '.repeat(50) }] },
    )
    expect(foreign.usage?.prompt_tokens_details?.cached_tokens).toBe(0)
    const total = second.usage?.prompt_tokens ?? 0
    const micro = 10 * (total - system) + system
    expect((await sandbox.readLog())[1]?.billed).toBe(`0.${String(micro).padStart(6, '0')}000`)
  })
})

describe('reasoning', () => {
  test('is hidden, counted in the completion, and billed at its own price', async () => {
    const sandbox = await useSandbox({
      config: { models: { [model]: { prices: { input: '0', output: '1', reasoning: '3' }, reasoningTokens: 20 } } },
    })
    const { choices, usage } = await ask(sandbox)
    expect(choices[0]?.message).toEqual({ role: 'assistant', content: answer, refusal: null })
    const words = countTokens(answer)
    expect(usage).toMatchObject({ completion_tokens: 20 + words, completion_tokens_details: { reasoning_tokens: 20 } })
    expect((await sandbox.readLog())[0]?.billed).toBe(`0.${String(60 + words).padStart(6, '0')}000`)
    expect((await ask(sandbox, { reasoning_effort: 'none' })).usage?.completion_tokens).toBe(words)
  })

  test('stays within max_tokens, even when nothing is left for an answer', async () => {
    const sandbox = await useSandbox()
    await sandbox.control('PUT', `/settings/${model}`, { reasoningTokens: 20 })
    for (const limit of [1, 20, 23]) {
      const completion = await ask(sandbox, { max_tokens: limit })
      expect(completion).toMatchObject({ choices: [{ finish_reason: 'length' }], usage: { completion_tokens: limit } })
    }
  })

  test('is streamed when the model is set to', async () => {
    const sandbox = await useSandbox()
    await sandbox.control('PUT', `/settings/${model}`, { reasoningTokens: 7, streamsReasoning: true })
    const { reasoning, text, usage } = await collect(sandbox, {})
    expect(reasoning).not.toBe('')
    expect(text).toBe(answer)
    expect(usage?.completion_tokens_details?.reasoning_tokens).toBe(7)
    expect((await ask(sandbox)).choices[0]?.message).toMatchObject({ content: answer, reasoning_content: reasoning })
  })
})

test('a stop sequence ends the answer before it, and counts what was sent', async () => {
  const sandbox = await useSandbox()
  for (const stop of ['lever', ['nowhere', 'lever', '[p]']]) {
    const { choices, usage } = await ask(sandbox, { stop })
    expect(choices).toMatchObject([{ finish_reason: 'stop', message: { content: 'The Vrell pump starts with a ' } }])
    expect(usage?.completion_tokens).toBe(countTokens('The Vrell pump starts with a '))
  }
})

test('the echo gives the beginning of the last message back, honestly counted, in few chunks', async () => {
  const sandbox = await useSandbox()
  const said = 'One two three, 数据库 and so on. '.repeat(40)
  const { text, usage } = await collect(sandbox, { model: 'sandbox-echo', messages: [{ role: 'user', content: said }] })
  expect(text).toBe(said.slice(0, 64))
  expect(usage).toMatchObject({
    prompt_tokens: 3 + 3 + countTokens('user') + countTokens(said),
    completion_tokens: countTokens(text),
  })
})
