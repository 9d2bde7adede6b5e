import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { charge, formatAmount, parsePrices } from '#sandbox/bill.ts'
import { startSandbox } from '#sandbox/server.ts'
import { sandboxAt, type TestSandbox, useSandbox } from '#test/support/sandbox.ts'
import { useScratchFolder } from '#test/support/scratch.ts'

const model = 'sandbox-steady'
const messages = [
  {
    role: 'user' as const,
    content: '<passage id="p">The Vrell pump starts with a lever.</passage>How does the Vrell pump start?',
  },
]

const countersSchema = z.object({
  requests: z.number(),
  begun: z.number(),
  finished: z.number(),
  aborted: z.number(),
  ended: z.number(),
  byModel: z.array(z.object({ model: z.string().nullable(), byStatus: z.record(z.string(), z.number()) })),
})
const billSchema = z.object({
  currency: z.string(),
  total: z.string(),
  forgotten: z.number(),
  byModel: z.array(z.object({ model: z.string().nullable(), requests: z.number(), billed: z.string() })),
  byCallKey: z.array(z.object({ requests: z.number() })),
})
const generationSchema = z.object({
  data: z.object({
    id: z.string(),
    model: z.string(),
    cancelled: z.boolean(),
    streamed: z.boolean(),
    finish_reason: z.string().nullable(),
    native_tokens_prompt: z.number(),
    native_tokens_completion: z.number(),
    native_tokens_reasoning: z.number(),
    native_tokens_cached: z.number(),
    total_cost: z.number(),
  }),
})

async function ask({ client }: TestSandbox, name = model, callId: string | null = null) {
  const headers = callId === null ? {} : { 'x-client-request-id': callId }
  return client.chat.completions.create({ model: name, messages }, { headers })
}

async function readInvoice({ controlUrl }: Pick<TestSandbox, 'controlUrl'>): Promise<Response> {
  return fetch(`${controlUrl}/invoice.csv`, { headers: { 'x-sandbox-control': 'control' } })
}

describe('prices', () => {
  test('one rounding over all tokens, at the tier of the prompt, and the fees on top', () => {
    const prices = parsePrices({
      input: '0.000000003',
      cachedInput: '0.000000001',
      cacheWrite: '0.000000005',
      output: '0.000000007',
      reasoning: '0.000000011',
      perCall: '0.000000100',
      perImage: '0.000000010',
      toolFees: { web_search: '0.000001' },
      tiers: [{ aboveInputTokens: 1000, input: '0.006', output: '0.014' }],
    })
    const usage = {
      promptTokens: 1000,
      cachedTokens: 100,
      cacheWriteTokens: 50,
      completionTokens: 40,
      reasoningTokens: 30,
      images: 2,
      toolUses: { web_search: 3, unpriced: 9 },
    }
    // 850 × 3 + 100 × 1 + 50 × 5 + 10 × 7 + 30 × 11 = 3,300 millionths of a nano: one nano.
    expect(charge(usage, prices)).toBe(1n + 100n + 20n + 3000n)
    // 851 × 6 + 100 × 6 + 50 × 6 + 10 × 14 + 30 × 14, in thousandths of a USD per million: 6,566 nano.
    expect(charge({ ...usage, promptTokens: 1001 }, prices)).toBe(6566n + 3120n)
  })

  test.each([
    [null, /object/u],
    [{ input: '1' }, /"output"/u],
    [{ input: 1, output: '1' }, /"input"/u],
    [{ input: '1', output: '-1' }, /"output"/u],
    [{ input: '1', output: '0.1234567891' }, /nine decimals/u],
    [{ input: '1', output: '1', discount: '1' }, /unknown price: discount/u],
    [{ input: '1', output: '1', toolFees: { x: 1 } }, /"x"/u],
    [{ input: '1', output: '1', tiers: [{ input: '1', output: '1' }] }, /aboveInputTokens/u],
  ])('%j are refused', (value, message) => {
    expect(() => parsePrices(value)).toThrow(message)
  })

  test('a configuration that is wrong is refused with the name of what is wrong', async () => {
    const prices = { input: '1', output: '1' }
    for (const [config, message] of [
      [{}, /models/u],
      [{ models: { a: { prices, contextTokens: 0 } } }, /model a: .*contextTokens/su],
      [{ models: { a: { prices, speed: 1 } } }, /model a: .*speed/su],
      [{ models: { 'a!b': { prices } } }, /without ! and :/u],
      [{ currency: 'euro', models: { a: { prices } } }, /three capital letters/u],
    ] as const) {
      await expect(startSandbox({ config })).rejects.toThrow(message)
    }
  })
})

describe('the invoice', () => {
  test('has a line for each request that began and ended, in the currency of the bill', async () => {
    const config = { currency: 'CNY', models: { [model]: { prices: { input: '1', output: '2' } } } }
    const sandbox = await useSandbox({ config })
    const { usage } = await ask(sandbox, model, 'run, "a":2')
    await expect(ask(sandbox, `${model}:429`)).rejects.toThrow()
    await expect(ask(sandbox, `${model}:cut-2`, 'plain')).rejects.toThrow()
    const response = await readInvoice(sandbox)
    expect(response.headers.get('content-type')).toMatch(/^text\/csv/u)
    const lines = (await response.text()).trimEnd().split('\r\n')
    const log = await sandbox.readLog()
    const input = usage?.prompt_tokens ?? 0
    expect(lines).toEqual([
      'request_id,client_request_id,model,input_tokens,cached_input_tokens,cache_write_tokens,output_tokens,reasoning_tokens,images,amount,currency,at',
      expect.stringMatching(
        `^${log[0]?.id},"run, ""a"":2",${model},${input},0,0,${usage?.completion_tokens},0,0,${log[0]?.billed},CNY,20`,
      ),
      expect.stringMatching(`^${log[2]?.id},plain,${model}:cut-2,${input},0,0,2,0,0,${log[2]?.billed},CNY,20`),
    ])
    expect(billSchema.parse(await sandbox.control('GET', '/bill')).currency).toBe('CNY')
  })
})

describe('a log that keeps few requests', () => {
  test('has a complete bill, complete counters, and a complete invoice out of its file', async () => {
    const folder = await useScratchFolder()
    const options = { logKeep: 5, logFile: join(folder, 'requests.jsonl') }
    const first = await startSandbox(options)
    const sandbox = { ...sandboxAt(first), close: first.close }
    const billed: bigint[] = []
    for (let count = 0; count < 33; count += 1) {
      const { usage } = await ask(sandbox, model, `call-${count}:1`)
      billed.push(BigInt(usage?.prompt_tokens ?? 0) * 400n + BigInt(usage?.completion_tokens ?? 0) * 1600n)
      if (count % 3 === 0) await expect(ask(sandbox, `${model}:503`)).rejects.toThrow()
    }
    const total = formatAmount(billed.reduce((sum, nano) => sum + nano, 0n))
    const check = async (at: Pick<TestSandbox, 'control' | 'controlUrl' | 'readLog'>): Promise<void> => {
      const bill = billSchema.parse(await at.control('GET', '/bill'))
      expect(bill).toMatchObject({ total, byModel: [{ model, requests: 33 }, { requests: 11 }] })
      expect(bill.forgotten).toBeGreaterThan(30)
      expect((await at.readLog()).length).toBeLessThan(11)
      const counters = countersSchema.parse(await at.control('GET', '/counters'))
      expect(counters).toMatchObject({ requests: 44, begun: 33, finished: 33, aborted: 0, ended: 44 })
      const text = await (await readInvoice(at)).text()
      expect(text.trimEnd().split('\r\n')).toHaveLength(34)
    }
    await check(sandbox)
    await first.close()
    const second = await startSandbox(options)
    await check(sandboxAt(second))
    await second.close()
  })

  test('without a file gives no invoice rather than half of one', async () => {
    const sandbox = await useSandbox({ logKeep: 2 })
    for (let count = 0; count < 6; count += 1) await ask(sandbox, 'sandbox-echo')
    const response = await readInvoice(sandbox)
    expect(response.status).toBe(409)
    expect(await response.text()).toMatch(/SANDBOX_LOG_FILE/u)
  })

  test('forgets nothing that is still open', async () => {
    const sandbox = await useSandbox({ logKeep: 2 })
    const leave = new AbortController()
    const open = sandbox.client.chat.completions.create({ model: `${model}:hang`, messages }, { signal: leave.signal })
    const failed = expect(open).rejects.toThrow()
    await sandbox.control('GET', '/counters?begun=1&waitMs=5000')
    for (let count = 0; count < 20; count += 1) await ask(sandbox, 'sandbox-echo')
    leave.abort()
    await failed
    const counters = countersSchema.parse(await sandbox.control('GET', '/counters?ended=21&waitMs=5000'))
    expect(counters).toMatchObject({ requests: 21, begun: 21, finished: 20, aborted: 1 })
  })
})

describe('counters', () => {
  test('by model and status, and waiting for them', async () => {
    const sandbox = await useSandbox()
    await ask(sandbox)
    await expect(ask(sandbox, `${model}:503`)).rejects.toThrow()
    const counters = countersSchema.parse(await sandbox.control('GET', '/counters'))
    expect(counters).toMatchObject({ requests: 2, begun: 1, finished: 1, aborted: 0, ended: 2 })
    expect(counters.byModel).toMatchObject([
      { model, byStatus: { 200: 1 } },
      { model: `${model}:503`, byStatus: { 503: 1 } },
    ])
    const waiting = sandbox.control('GET', `/counters?finished=2&model=${model}&waitMs=5000`)
    await ask(sandbox)
    expect(await waiting).toMatchObject({ finished: 2 })
    await expect(sandbox.control('GET', '/counters?finished=9&waitMs=30')).rejects.toThrow(/408.*not so many/u)
    await expect(sandbox.control('GET', '/counters?finished=x')).rejects.toThrow(/400.*finished/u)
  })

  test('and the log begin anew when they are reset, also in the file', async () => {
    const folder = await useScratchFolder()
    const sandbox = await useSandbox({ logFile: join(folder, 'requests.jsonl') })
    const { id } = await ask(sandbox)
    await sandbox.control('DELETE', '/log')
    expect(await sandbox.readLog()).toEqual([])
    expect(billSchema.parse(await sandbox.control('GET', '/bill')).total).toBe('0.000000000')
    const { id: later } = await ask(sandbox)
    expect(later).not.toBe(id)
    expect(await sandbox.readLog()).toHaveLength(1)
    await sandbox.close()
    const again = await startSandbox({ logFile: join(folder, 'requests.jsonl') })
    expect(await sandboxAt(again).readLog()).toHaveLength(1)
    await again.close()
  })
})

describe('GET /v1/generation', () => {
  const look = async ({ url }: TestSandbox, id: string, base = url): Promise<Response> =>
    fetch(`${base}/generation?id=${encodeURIComponent(id)}`, { headers: { authorization: 'Bearer sandbox-key' } })

  test('tells usage and exact cost by the id of the answer, also below /api', async () => {
    const sandbox = await useSandbox()
    const { id, usage } = await ask(sandbox, 'sandbox-thinker')
    for (const base of [sandbox.url, sandbox.url.replace('/v1', '/api/v1')]) {
      const text = await (await look(sandbox, id, base)).text()
      expect(generationSchema.parse(JSON.parse(text)).data).toMatchObject({
        id,
        model: 'sandbox-thinker',
        cancelled: false,
        streamed: false,
        finish_reason: 'stop',
        native_tokens_prompt: usage?.prompt_tokens,
        native_tokens_completion: usage?.completion_tokens,
        native_tokens_reasoning: 48,
      })
      expect(text).toContain(`"total_cost":${(await sandbox.readLog())[0]?.billed}`)
    }
  })

  test('of a request whose client left, and of one whose stream was cut', async () => {
    const sandbox = await useSandbox()
    const stream = await sandbox.client.chat.completions.create({ model: `${model}:hang-3`, messages, stream: true })
    let left = ''
    for await (const chunk of stream) {
      left = chunk.id
      if (chunk.choices[0]?.delta.content !== '') break
    }
    await sandbox.control('GET', '/counters?aborted=1&waitMs=5000')
    const response = await look(sandbox, left)
    expect(generationSchema.parse(await response.json()).data).toMatchObject({
      cancelled: true,
      streamed: true,
      finish_reason: null,
      native_tokens_completion: 3,
    })
    const cut = await sandbox.client.chat.completions.create({ model: `${model}:cut-2`, messages, stream: true })
    const [first] = await cut
      .toReadableStream()
      .pipeThrough(new TextDecoderStream())
      .values()
      .next()
      .then(({ value }) => [value])
    const { id } = z.object({ id: z.string() }).parse(JSON.parse(String(first)))
    await sandbox.control('GET', '/counters?ended=2&waitMs=5000')
    expect(generationSchema.parse(await (await look(sandbox, id)).json()).data.native_tokens_completion).toBe(2)
  })

  test('is a 404 until the delay is over, while the request is open, and for what never began', async () => {
    const sandbox = await useSandbox()
    await sandbox.control('PUT', '/generations', { delayMs: 60_000 })
    const { id } = await ask(sandbox)
    expect((await look(sandbox, id)).status).toBe(404)
    await sandbox.control('PUT', '/generations', { delayMs: 0 })
    expect((await look(sandbox, id)).status).toBe(200)
    for (const other of ['', 'chatcmpl-1', `x${id}`, id.replace(/\d+$/u, '99')]) {
      expect((await look(sandbox, other)).status).toBe(404)
    }
    const refused = await fetch(`${sandbox.url}/chat/completions`, {
      method: 'POST',
      headers: { authorization: 'Bearer sandbox-key' },
      body: JSON.stringify({ model: `${model}:503`, messages }),
    })
    expect((await look(sandbox, refused.headers.get('x-request-id') ?? '')).status).toBe(404)
    await expect(sandbox.control('PUT', '/generations', { delayMs: -1 })).rejects.toThrow(/400.*delayMs/u)
    expect((await fetch(`${sandbox.url}/generation?id=${id}`)).status).toBe(401)
  })
})
