import { countTokens } from 'gpt-tokenizer/encoding/o200k_base'
import { describe, expect, test } from 'vitest'
import { readAll, type TestSandbox, useSandbox } from '#test/support/sandbox.ts'

const model = 'sandbox-economy'
const messages = [
  {
    role: 'user' as const,
    content: '<passage id="p">The Vrell pump starts with a lever.</passage>How does the Vrell pump start?',
  },
]
const answer = 'The Vrell pump starts with a lever. [p]'

async function callRaw({ url }: TestSandbox, extra: object = {}): Promise<Response> {
  return fetch(`${url}/chat/completions`, {
    method: 'POST',
    headers: { authorization: 'Bearer sandbox-key' },
    body: JSON.stringify({ model, messages, ...extra }),
  })
}

async function withFaults(faults: unknown): Promise<TestSandbox> {
  const sandbox = await useSandbox()
  await sandbox.control('PUT', `/faults/${model}`, faults)
  return sandbox
}

describe('refusals', () => {
  test.each([
    ['rateLimit', 429, 'rate_limit_exceeded'],
    ['serverError', 500, null],
    ['overloaded', 503, 'overloaded'],
    ['contextLength', 400, 'context_length_exceeded'],
  ])('%s answers %i, begins nothing and bills nothing', async (kind, status, code) => {
    const { client, readLog } = await withFaults({ [kind]: true })
    await expect(client.chat.completions.create({ model, messages })).rejects.toMatchObject({ status, code })
    expect(await readLog()).toMatchObject([{ status, begun: false, finished: false, billed: '0.000000000' }])
  })

  test('the busy model says when to come back', async () => {
    const sandbox = await useSandbox()
    const response = await callRaw(sandbox, { model: 'sandbox-busy' })
    await response.body?.cancel()
    expect(response.status).toBe(429)
    expect(response.headers.get('retry-after-ms')).toBe('50')
    expect(response.headers.get('retry-after')).toBe('1')
  })

  test('strike every nth request, so many times, those with a certain text, and no more once cleared', async () => {
    const sandbox = await withFaults([
      { overloaded: true, matching: 'lever', times: 2 },
      { rateLimit: { everyNth: 2 } },
    ])
    const statuses: number[] = []
    for (let count = 0; count < 6; count += 1) {
      const response = await callRaw(sandbox)
      await response.body?.cancel()
      statuses.push(response.status)
    }
    expect(statuses).toEqual([503, 503, 200, 429, 200, 429])
    await sandbox.control('DELETE', `/faults/${model}`)
    const healed = await Promise.all([callRaw(sandbox), callRaw(sandbox)])
    expect(healed.map((response) => response.status)).toEqual([200, 200])
  })
})

describe('broken answers', () => {
  test.each([true, false])('a cut connection bills what was sent before (stream: %s)', async (stream) => {
    const sandbox = await withFaults({ cutStreamAfterChunks: 3 })
    await expect(callRaw(sandbox, { stream }).then((response) => response.text())).rejects.toThrow()
    const [request] = await sandbox.readLog()
    expect(request).toMatchObject({ begun: true, finished: false, usage: { completionTokens: 3 } })
    expect(request?.clientGoneAt).toBeUndefined()
  })

  test('a cut stream has delivered its first chunks', async () => {
    const { client } = await withFaults({ cutStreamAfterChunks: 3 })
    const stream = await client.chat.completions.create({ model, messages, stream: true })
    let received = ''
    const read = async (): Promise<void> => {
      for await (const chunk of stream) received += chunk.choices[0]?.delta.content ?? ''
    }
    await expect(read()).rejects.toThrow()
    expect(received).not.toBe('')
    expect(countTokens(received)).toBe(3)
  })

  test.each(['not-json', 'not-completion', 'invalid-sse'])(
    '%s is a 200 that bills nothing, unless told to',
    async (garbage) => {
      const sandbox = await withFaults([
        { garbage, times: 1 },
        { garbage, bills: true },
      ])
      const [free, billed] = [await callRaw(sandbox, { stream: true }), await callRaw(sandbox, { stream: true })]
      expect([free.status, billed.status]).toEqual([200, 200])
      expect(await free.text()).toBe(await billed.text())
      const log = await sandbox.readLog()
      expect(log[0]).toMatchObject({ status: 200, begun: true, billed: '0.000000000' })
      expect(log[1]?.usage.completionTokens).toBe(countTokens(answer))
    },
  )

  test('empty choices and filtered content', async () => {
    const { client } = await withFaults([{ emptyChoices: true, times: 1 }, { contentFilter: true }])
    expect((await client.chat.completions.create({ model, messages })).choices).toEqual([])
    const filtered = await client.chat.completions.create({ model, messages })
    expect(filtered.choices).toMatchObject([{ finish_reason: 'content_filter' }])
  })

  test('delays hold back the first byte and each piece', async () => {
    const { client } = await withFaults({ delayFirstByteMs: 60, delayPerChunkMs: 5 })
    const before = performance.now()
    await client.chat.completions.create({ model, messages })
    // Timers may fire a millisecond early.
    expect(performance.now() - before).toBeGreaterThan(60 + 4 * countTokens(answer) - 1)
  })
})

describe('usage that is not what it should be', () => {
  test('missing, in a body and in a stream', async () => {
    const { client } = await withFaults({ usageMissing: true })
    expect((await client.chat.completions.create({ model, messages })).usage).toBeUndefined()
    const options = { stream: true, stream_options: { include_usage: true } } as const
    const chunks = await readAll(await client.chat.completions.create({ model, messages, ...options }))
    expect(chunks.some((chunk) => chunk.usage !== undefined)).toBe(false)
  })

  test('reported wrong while the bill stays right', async () => {
    const { client, readLog } = await withFaults({ usageMultiplier: 2 })
    const { usage } = await client.chat.completions.create({ model, messages })
    expect(usage?.completion_tokens).toBe(2 * countTokens(answer))
    expect(await readLog()).toMatchObject([{ usage: { completionTokens: countTokens(answer) } }])
  })

  test('billed beyond max_tokens, and for more prompt than was sent', async () => {
    const { client, readLog } = await withFaults([{ times: 1 }, { extraCompletionTokens: 70, promptMultiplier: 9 }])
    const honest = await client.chat.completions.create({ model, messages, max_tokens: 2 })
    const { usage } = await client.chat.completions.create({ model, messages, max_tokens: 2 })
    expect(usage).toMatchObject({ completion_tokens: 72, prompt_tokens: 9 * (honest.usage?.prompt_tokens ?? 0) })
    const [, greedy] = await readLog()
    expect(greedy?.usage).toEqual({ promptTokens: usage?.prompt_tokens, completionTokens: 72 })
  })
})
