import { readFile } from 'node:fs/promises'
import { countTokens } from 'gpt-tokenizer/encoding/o200k_base'
import OpenAI from 'openai'
import { describe, expect, test } from 'vitest'
import { parseFaultRules } from '#sandbox/fault-rules.ts'
import { parseFaultWords } from '#sandbox/fault-words.ts'
import { readAll, type TestSandbox, useSandbox } from '#test/support/sandbox.ts'

const messages = [
  {
    role: 'user' as const,
    content: '<passage id="p">The Vrell pump starts with a lever.</passage>How does the Vrell pump start?',
  },
]
const answer = 'The Vrell pump starts with a lever. [p]'

async function ask({ client }: TestSandbox, model: string, extra: object = {}) {
  return client.chat.completions.create({ model, messages, ...extra })
}

async function askRaw({ url }: TestSandbox, model: string, headers: Record<string, string> = {}): Promise<Response> {
  const response = await fetch(`${url}/chat/completions`, {
    method: 'POST',
    headers: { authorization: 'Bearer sandbox-key', ...headers },
    body: JSON.stringify({ model, messages }),
  })
  await response.body?.cancel()
  return response
}

/** Reads a stream until it ends or fails, and tells both. */
async function readStream(
  sandbox: TestSandbox,
  model: string,
): Promise<{ text: string; error: unknown; chunks: number }> {
  let text = ''
  let chunks = 0
  let error: unknown = null
  try {
    const stream = await sandbox.client.chat.completions.create(
      { model, messages, stream: true, stream_options: { include_usage: true } },
      { signal: AbortSignal.timeout(400) },
    )
    for await (const chunk of stream) {
      chunks += 1
      text += chunk.choices[0]?.delta.content ?? ''
    }
  } catch (thrown) {
    error = thrown
  }
  return { text, error, chunks }
}

describe('words behind the model name', () => {
  test.each([
    ['400', 400, null],
    ['401', 401, 'invalid_api_key'],
    ['402', 402, 'insufficient_credits'],
    ['404', 404, 'model_not_found'],
    ['429', 429, 'rate_limit_exceeded'],
    ['quota', 429, 'insufficient_quota'],
    ['500', 500, null],
    ['502', 502, null],
    ['503', 503, 'overloaded'],
    ['529', 529, 'overloaded'],
    ['context', 400, 'context_length_exceeded'],
    ['prompt-filter', 400, 'content_filter'],
  ])('%s refuses with %i, bills nothing, and is logged under the whole name', async (word, status, code) => {
    const sandbox = await useSandbox()
    const model = `sandbox-steady!${word}`
    await expect(ask(sandbox, model)).rejects.toMatchObject({ status, code })
    expect(await sandbox.readLog()).toMatchObject([{ model, status, begun: false, billed: '0.000000000' }])
  })

  test.each([
    ['429', {}],
    ['429!retry-ms-70', { 'retry-after-ms': '70' }],
    ['503!retry-s-2', { 'retry-after': '2' }],
  ])('%s tells when to come back: %j', async (words, expected) => {
    const { headers } = await askRaw(await useSandbox(), `sandbox-steady!${words}`)
    const told = Object.fromEntries([...headers].filter(([name]) => name.startsWith('retry-after')))
    expect(told).toEqual(expected)
  })

  test('as a date, which is never too early', async () => {
    const before = Date.now()
    const { headers } = await askRaw(await useSandbox(), 'sandbox-steady:429:retry-date-3')
    const at = Date.parse(headers.get('retry-after') ?? '')
    expect(headers.get('retry-after')).toMatch(/GMT$/u)
    expect(at).toBeGreaterThanOrEqual(before + 3000)
    expect(at).toBeLessThan(Date.now() + 4001)
  })

  test('count their own requests: so many times, and every nth', async () => {
    const sandbox = await useSandbox()
    const statuses = async (model: string): Promise<readonly number[]> => {
      const seen: number[] = []
      for (let count = 0; count < 4; count += 1) seen.push((await askRaw(sandbox, model)).status)
      return seen
    }
    expect(await statuses('sandbox-steady:503:times-2')).toEqual([503, 503, 200, 200])
    expect(await statuses('sandbox-steady:500:nth-2')).toEqual([200, 500, 200, 500])
    expect(await statuses('sandbox-steady')).toEqual([200, 200, 200, 200])
  })

  test('that nobody knows are refused with those that are known', async () => {
    await expect(ask(await useSandbox(), 'sandbox-steady!explode')).rejects.toThrow(
      /unknown fault word "explode".*retry-s-N/u,
    )
    await expect(ask(await useSandbox(), 'nobody!429')).rejects.toMatchObject({ status: 404 })
  })
})

describe('answers that break', () => {
  test.each(['cut-headers', 'cut-3'])('%s: the connection dies before a byte of a body', async (word) => {
    const sandbox = await useSandbox()
    await expect(ask(sandbox, `sandbox-steady:${word}`)).rejects.toThrow(OpenAI.APIConnectionError)
    const [request] = await sandbox.readLog()
    expect(request).toMatchObject({
      begun: true,
      finished: false,
      usage: { completionTokens: word === 'cut-3' ? 3 : 0 },
    })
    expect(request?.clientGoneAt).toBeUndefined()
    expect(request?.billed).not.toBe('0.000000000')
  })

  test('hang: nothing comes, not even headers', async () => {
    const sandbox = await useSandbox()
    const signal = AbortSignal.timeout(200)
    const request = fetch(`${sandbox.url}/chat/completions`, {
      method: 'POST',
      headers: { authorization: 'Bearer sandbox-key' },
      body: JSON.stringify({ model: 'sandbox-steady:hang', messages }),
      signal,
    })
    await expect(request).rejects.toThrow('timeout')
  })

  test.each([true, false])('hang-headers: headers come, and never a byte (stream: %s)', async (stream) => {
    const sandbox = await useSandbox()
    const response = await fetch(`${sandbox.url}/chat/completions`, {
      method: 'POST',
      headers: { authorization: 'Bearer sandbox-key' },
      body: JSON.stringify({ model: 'sandbox-steady:hang-headers', messages, stream }),
      signal: AbortSignal.timeout(300),
    })
    expect(response.status).toBe(200)
    await expect(response.text()).rejects.toThrow('timeout')
    await sandbox.control('GET', '/counters?aborted=1&waitMs=5000')
    const [request] = await sandbox.readLog()
    expect(request).toMatchObject({ begun: true, finished: false, usage: { completionTokens: 0 } })
  })

  test('hang-3: a stream stops in its middle, and what came is billed', async () => {
    const sandbox = await useSandbox()
    // The client ends a stream that it aborts itself without an error.
    const { text } = await readStream(sandbox, 'sandbox-steady:hang-3')
    expect(countTokens(text)).toBe(3)
    await sandbox.control('GET', '/counters?aborted=1&waitMs=5000')
    expect(await sandbox.readLog()).toMatchObject([{ finished: false, usage: { completionTokens: 3 } }])
  })

  test('end-3: a stream ends as if it were whole, without reason, usage or mark of its end', async () => {
    const sandbox = await useSandbox()
    const { text, error, chunks } = await readStream(sandbox, 'sandbox-steady:end-3')
    expect({ error, chunks, tokens: countTokens(text) }).toEqual({ error: null, chunks: 4, tokens: 3 })
    expect(await sandbox.readLog()).toMatchObject([{ finished: false, usage: { completionTokens: 3 } }])
  })

  test('error-2: an error object inside the stream', async () => {
    const sandbox = await useSandbox()
    const { text, error } = await readStream(sandbox, 'sandbox-steady:error-2')
    expect(countTokens(text)).toBe(2)
    expect(error).toBeInstanceOf(OpenAI.APIError)
    expect(error).toMatchObject({ error: { message: 'Overloaded', type: 'overloaded_error' } })
    await expect(ask(sandbox, 'sandbox-steady:error-2')).rejects.toMatchObject({ status: 500 })
    expect((await sandbox.readLog())[1]).toMatchObject({ begun: true, finished: false, usage: { completionTokens: 2 } })
  })

  test('garbage, empty, filter and no-usage do what the rules of the same name do', async () => {
    const sandbox = await useSandbox()
    expect((await ask(sandbox, 'sandbox-steady:empty')).choices).toEqual([])
    expect((await ask(sandbox, 'sandbox-steady:filter')).choices[0]?.finish_reason).toBe('content_filter')
    expect((await ask(sandbox, 'sandbox-steady:no-usage')).usage).toBeUndefined()
    expect(await ask(sandbox, 'sandbox-steady:garbage-object')).toEqual({ object: 'list', data: [] })
    await expect(ask(sandbox, 'sandbox-steady:garbage')).rejects.toThrow()
  })

  test('slow and pace take their time', async () => {
    const sandbox = await useSandbox()
    const before = performance.now()
    await ask(sandbox, 'sandbox-steady:slow-60:pace-5')
    expect(performance.now() - before).toBeGreaterThan(60 + 4 * countTokens(answer) - 1)
  })
})

describe('usage that no count can be, and answers that are too long', () => {
  test('negative, as text, and multiplied, while the bill stays right', async () => {
    const sandbox = await useSandbox()
    const honest = await ask(sandbox, 'sandbox-steady')
    const input = honest.usage?.prompt_tokens ?? 0
    expect((await ask(sandbox, 'sandbox-steady:usage-negative')).usage?.prompt_tokens).toBe(-1 - input)
    expect((await ask(sandbox, 'sandbox-steady:usage-strings')).usage?.prompt_tokens).toBe(String(input))
    expect((await ask(sandbox, 'sandbox-steady:usage-3')).usage?.prompt_tokens).toBe(3 * input)
    const billed = (await sandbox.readLog()).map((request) => request.billed)
    expect(new Set(billed).size).toBe(1)
  })

  test('overlong-40: text beyond max_tokens is sent, reported and billed', async () => {
    const sandbox = await useSandbox()
    const long = await ask(sandbox, 'sandbox-steady:overlong-40', { max_tokens: 5 })
    expect(long.usage?.completion_tokens).toBe(45)
    const [choice] = long.choices
    expect(choice?.finish_reason).toBe('length')
    expect(choice?.message.content?.startsWith(answer.slice(0, 20))).toBe(true)
    expect(countTokens(choice?.message.content ?? '')).toBeGreaterThan(40)
    expect(await sandbox.readLog()).toMatchObject([{ usage: { completionTokens: 45 } }])
  })
})

describe('the header x-sandbox-faults', () => {
  test('says it for its own request alone, and counts requests with the same rules', async () => {
    const sandbox = await useSandbox()
    await sandbox.control('PUT', '/faults/sandbox-steady', { overloaded: true })
    const script = {
      'x-sandbox-faults': JSON.stringify([{ serverError: true, times: 1 }, { badGateway: true, times: 1 }, {}]),
    }
    const statuses: number[] = []
    for (const headers of [script, script, script, {}]) {
      statuses.push((await askRaw(sandbox, 'sandbox-steady', headers)).status)
    }
    expect(statuses).toEqual([500, 502, 200, 503])
  })

  test.each(['{', '7', '{"explode":true}', '{"times":0}', '{"retryAfterAs":"never"}'])(
    '%s is refused with what is wrong',
    async (script) => {
      const response = await askRaw(await useSandbox(), 'sandbox-steady', { 'x-sandbox-faults': script })
      expect(response.status).toBe(400)
    },
  )
})

test('thousands of different scripts take no more memory than some', async () => {
  const sandbox = await useSandbox()
  const responses = await Promise.all(
    Array.from({ length: 2500 }, (_, index) =>
      askRaw(sandbox, 'sandbox-echo', { 'x-sandbox-faults': JSON.stringify({ rateLimit: true, retryAfterMs: index }) }),
    ),
  )
  expect(new Set(responses.map((response) => response.status))).toEqual(new Set([429]))
}, 60_000)

test('docs/sandbox.md names every word and every field of the rules', async () => {
  const text = await readFile(new URL('../../docs/sandbox.md', import.meta.url), 'utf8')
  const known = /known: (.*)$/u.exec(messageOf(() => parseFaultWords(['?'])))?.[1]?.split(', ') ?? []
  expect(known.length).toBeGreaterThan(30)
  expect(known.filter((word) => !text.includes(`\`${word}\``))).toEqual([])
  const rules = [...text.matchAll(/^\| `[^`]+` \| `(\{.*?\})` \|/gmu)].map(([, rule]) => rule ?? '')
  expect(rules.length).toBeGreaterThan(25)
  for (const rule of rules) expect(() => parseFaultRules(JSON.parse(rule))).not.toThrow()
})

function messageOf(call: () => unknown): string {
  try {
    call()
  } catch (error) {
    return String(error)
  }
  return ''
}

test('a stream is whole when nothing is scripted', async () => {
  const { client } = await useSandbox()
  const chunks = await readAll(
    await client.chat.completions.create({ model: 'sandbox-steady', messages, stream: true }),
  )
  expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('')).toBe(answer)
})
