import { countTokens } from 'gpt-tokenizer/encoding/o200k_base'
import OpenAI from 'openai'
import { describe, expect, test } from 'vitest'
import { readAll, useSandbox } from '#test/support/sandbox.ts'

const content = `<passage id="p7" source="pump.md">The Vrell pump starts with a lever. It weighs nine kilograms.</passage>
<question>How does the Vrell pump start?</question>`
const answer = 'The Vrell pump starts with a lever. [p7]'
const messages = [
  { role: 'system' as const, content: 'Answer from the passages.' },
  { role: 'user' as const, content },
]
/** Counted here by OpenAI's recipe: 3 a message and 3 to prime the answer, beside what roles and texts hold. */
const promptTokens = messages.reduce(
  (sum, message) => sum + 3 + countTokens(message.role) + countTokens(message.content),
  3,
)

describe('the sandbox speaks to the openai client', () => {
  test('in one body, with usage that counts real tokens', async () => {
    const { client } = await useSandbox()
    const completion = await client.chat.completions.create({ model: 'sandbox-economy', messages })
    expect(completion.choices).toMatchObject([
      { message: { role: 'assistant', content: answer }, finish_reason: 'stop' },
    ])
    expect(completion.usage).toMatchObject({
      prompt_tokens: promptTokens,
      completion_tokens: countTokens(answer),
      total_tokens: promptTokens + countTokens(answer),
      prompt_tokens_details: { cached_tokens: 0 },
    })
  })

  test('with several answers, whole and side by side in a stream, each billed', async () => {
    const { client, readLog } = await useSandbox()
    const asked = { model: 'sandbox-economy', messages, n: 3 }
    const whole = await client.chat.completions.create(asked)
    expect(whole.choices.map(({ index, message }) => [index, message.content])).toEqual([
      [0, answer],
      [1, answer],
      [2, answer],
    ])
    expect(whole.usage).toMatchObject({ prompt_tokens: promptTokens, completion_tokens: 3 * countTokens(answer) })
    const chunks = await readAll(await client.chat.completions.create({ ...asked, stream: true }))
    const order = chunks.flatMap(({ choices }) => choices.flatMap(({ index, delta }) => (delta.content ? [index] : [])))
    expect(order.slice(0, 4)).toEqual([0, 1, 2, 0])
    expect((await readLog()).map(({ usage }) => usage.completionTokens)).toEqual([
      3 * countTokens(answer),
      3 * countTokens(answer),
    ])
  })

  test('as a stream of the same text, with usage in the last chunk when asked for', async () => {
    const { client } = await useSandbox()
    const stream = await client.chat.completions.create({
      model: 'sandbox-economy',
      messages,
      stream: true,
      stream_options: { include_usage: true },
    })
    const chunks = await readAll(stream)
    expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('')).toBe(answer)
    expect(chunks.filter((chunk) => chunk.choices[0]?.finish_reason === 'stop')).toHaveLength(1)
    expect(chunks.at(-1)).toMatchObject({
      choices: [],
      usage: { prompt_tokens: promptTokens, completion_tokens: countTokens(answer) },
    })
    expect(chunks.slice(0, -1).every((chunk) => chunk.usage === null)).toBe(true)
  })

  test('as a stream without usage when not asked for', async () => {
    const { client } = await useSandbox()
    const stream = await client.chat.completions.create({ model: 'sandbox-economy', messages, stream: true })
    const chunks = await readAll(stream)
    expect(chunks.some((chunk) => 'usage' in chunk)).toBe(false)
  })

  test.each(['max_tokens', 'max_completion_tokens'])('and stops after exactly %s', async (field) => {
    const { client } = await useSandbox()
    for (const limit of [1, 3, countTokens(answer) - 1]) {
      const completion = await client.chat.completions.create({ model: 'sandbox-economy', messages, [field]: limit })
      expect(completion.choices[0]?.finish_reason).toBe('length')
      expect(completion.usage?.completion_tokens).toBe(limit)
      expect(answer.startsWith(completion.choices[0]?.message.content ?? 'no')).toBe(true)
    }
    const whole = { model: 'sandbox-economy', messages, [field]: countTokens(answer) }
    const completion = await client.chat.completions.create(whole)
    expect(completion.choices).toMatchObject([{ message: { content: answer }, finish_reason: 'stop' }])
  })

  test('and gives the same answer to the same request', async () => {
    const { client } = await useSandbox()
    const [first, second] = await Promise.all(
      [1, 2].map(() => client.chat.completions.create({ model: 'sandbox-small', messages })),
    )
    expect(first?.choices).toEqual(second?.choices)
  })

  test('and lists its models', async () => {
    const { client } = await useSandbox()
    const models = await readAll(client.models.list())
    expect(models.map((model) => model.id)).toEqual([
      'sandbox-economy',
      'sandbox-busy',
      'sandbox-steady',
      'sandbox-small',
      'sandbox-thinker',
      'sandbox-echo',
      'sandbox-embed',
    ])
    expect(models[2]).toMatchObject({ kind: 'chat', context_length: 128_000, pricing: { input: '0.400000000' } })
    expect(models[6]).toMatchObject({ kind: 'embedding', architecture: { output_modalities: ['embeddings'] } })
  })
})

describe('a request that cannot be served is refused in the shape of OpenAI', () => {
  test('wrong key: 401', async () => {
    const { url } = await useSandbox()
    const client = new OpenAI({ baseURL: url, apiKey: 'wrong', maxRetries: 0 })
    const request = client.chat.completions.create({ model: 'sandbox-economy', messages })
    await expect(request).rejects.toMatchObject({ status: 401, code: 'invalid_api_key' })
    await expect(client.models.list()).rejects.toMatchObject({ status: 401 })
  })

  test('unknown model: 404 model_not_found', async () => {
    const { client } = await useSandbox()
    const request = client.chat.completions.create({ model: 'nobody', messages })
    await expect(request).rejects.toMatchObject({ status: 404, code: 'model_not_found' })
  })

  test('a prompt beyond the context of the model: 400 context_length_exceeded', async () => {
    const { client } = await useSandbox()
    const request = client.chat.completions.create({ model: 'sandbox-small', messages, max_tokens: 16_000 })
    await expect(request).rejects.toMatchObject({ status: 400, code: 'context_length_exceeded' })
  })

  test.each([
    ['no JSON', '{"model":'],
    ['no messages', '{"model":"sandbox-economy"}'],
    ['empty messages', '{"model":"sandbox-economy","messages":[]}'],
    ['a role nobody has', '{"model":"sandbox-economy","messages":[{"role":"king","content":"hi"}]}'],
    [
      'no tokens to answer with',
      '{"model":"sandbox-economy","messages":[{"role":"user","content":"hi"}],"max_tokens":0}',
    ],
    ['more answers than there are', '{"model":"sandbox-economy","messages":[{"role":"user","content":"hi"}],"n":129}'],
  ])('%s: 400', async (_, body) => {
    const { url } = await useSandbox()
    const response = await fetch(`${url}/chat/completions`, {
      method: 'POST',
      headers: { authorization: 'Bearer sandbox-key' },
      body,
    })
    expect(response.status).toBe(400)
    expect(await response.json()).toMatchObject({ error: { type: 'invalid_request_error' } })
  })
})

test('the control API is closed to whoever lacks its key, and says what is wrong with a call', async () => {
  const { controlUrl, control } = await useSandbox()
  expect((await fetch(`${controlUrl}/log`)).status).toBe(401)
  await expect(control('PUT', '/faults/sandbox-economy', { rateLimits: true })).rejects.toThrow(/400.*rateLimits/u)
  await expect(control('POST', '/holds', { notifyUrl: 'http://example.com/' })).rejects.toThrow(/400.*notifyUrl/u)
  await expect(control('PUT', '/faults/nobody', {})).rejects.toThrow(/404/u)
  await expect(control('GET', '/nowhere')).rejects.toThrow(/404/u)
  await expect(control('GET', '/settings/%ff')).rejects.toThrow(/400/u)
})

test('300 requests at once are all answered', async () => {
  const { client, readLog } = await useSandbox()
  const completions = await Promise.all(
    Array.from({ length: 300 }, () => client.chat.completions.create({ model: 'sandbox-steady', messages })),
  )
  expect(completions.every((completion) => completion.choices[0]?.message.content === answer)).toBe(true)
  const log = await readLog()
  expect(log.filter((request) => request.finished)).toHaveLength(300)
})

test('a long text without a break does not hold up the provider', async () => {
  const { client } = await useSandbox()
  const before = performance.now()
  await client.chat.completions.create({
    model: 'sandbox-steady',
    messages: [{ role: 'user', content: 'a'.repeat(50_000) + '数据库'.repeat(5000) }],
  })
  expect(performance.now() - before).toBeLessThan(2000)
})
