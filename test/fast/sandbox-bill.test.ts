import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { countTokens } from 'gpt-tokenizer/encoding/o200k_base'
import { describe, expect, test } from 'vitest'
import { pollUntil } from '#test/support/poll.ts'
import { sandboxAt, useSandbox } from '#test/support/sandbox.ts'
import { useScratchFolder } from '#test/support/scratch.ts'
import { startProcess } from '#local/child-process.ts'
import { z } from 'zod'

/** Prices with remainders, so that a charge rounded in the wrong place or direction shows. */
const config = { models: { odd: { prices: { input: '0.133333333', output: '1.777777777' } } } }
const nanoIn = 133_333_333n
const nanoOut = 1_777_777_777n

const text =
  '<passage id="p">The Vrell pump starts with a lever on its left side.</passage>How does the Vrell pump start?'
const answer = 'The Vrell pump starts with a lever on its left side. [p]'
const messages = [{ role: 'user' as const, content: text }]
const promptTokens = 3 + 3 + countTokens('user') + countTokens(text)

/** What the two counts cost, by integer division and remainder. */
function priceOf(completionTokens: number): bigint {
  const exact = BigInt(promptTokens) * nanoIn + BigInt(completionTokens) * nanoOut
  return exact / 1_000_000n + (exact % 1_000_000n === 0n ? 0n : 1n)
}

function asUsd(nano: bigint): string {
  return `${nano / 1_000_000_000n}.${String(nano % 1_000_000_000n).padStart(9, '0')}`
}

describe('the bill', () => {
  test('charges each answer exactly, and sums it by model and by call key', async () => {
    const { client, control, readLog } = await useSandbox({ config })
    const limits = [1, 2, 5, 100]
    for (const [index, limit] of limits.entries()) {
      const headers = { 'x-client-request-id': `run:a/${index % 2}:${index}` }
      await client.chat.completions.create({ model: 'odd', messages, max_tokens: limit }, { headers })
    }
    await expect(client.chat.completions.create({ model: 'nobody', messages })).rejects.toThrow()

    const charges = limits.map((limit) => priceOf(Math.min(limit, countTokens(answer))))
    const log = await readLog()
    expect(log.map((request) => request.billed)).toEqual([...charges.map(asUsd), '0.000000000'])
    expect(log[3]).toMatchObject({
      callKey: 'run:a/1',
      attempt: 3,
      keyName: 'default',
      status: 200,
      begun: true,
      finished: true,
      usage: { promptTokens, completionTokens: countTokens(answer) },
    })
    expect(log[4]).toMatchObject({ callKey: null, attempt: null, model: 'nobody', status: 404, begun: false })
    const [a = 0n, b = 0n, c = 0n, d = 0n] = charges
    expect(await control('GET', '/bill')).toMatchObject({
      currency: 'USD',
      total: asUsd(a + b + c + d),
      byModel: [
        { model: 'odd', requests: 4, begun: 4, billed: asUsd(a + b + c + d) },
        { model: 'nobody', requests: 1, begun: 0 },
      ],
      byCallKey: [
        { model: 'odd', callKey: 'run:a/0', requests: 2, billed: asUsd(a + c) },
        { model: 'odd', callKey: 'run:a/1', requests: 2, billed: asUsd(b + d) },
        { model: 'nobody', callKey: null },
      ],
    })
  })

  test('charges a client that leaves in mid-stream for its prompt and for what was generated', async () => {
    const { client, control, readLog } = await useSandbox({ config })
    await control('POST', '/holds', { at: 'mid-stream' })
    const stream = await client.chat.completions.create({ model: 'odd', messages, stream: true })
    let received = ''
    for await (const chunk of stream) {
      received += chunk.choices[0]?.delta.content ?? ''
      // The provider holds the stream after half of its pieces, of one token each.
      if (countTokens(received) === Math.ceil(countTokens(answer) / 2)) break
    }
    const request = await pollUntil(async () => (await readLog()).find((each) => each.clientGoneAt !== undefined), {
      what: 'the provider notices that its client is gone',
    })
    expect(request).toMatchObject({ begun: true, finished: false, usage: { completionTokens: countTokens(received) } })
    expect(request.billed).toBe(asUsd(priceOf(countTokens(received))))
  })

  test('charges a client that leaves before the first byte for its prompt', async () => {
    const { client, control, readLog } = await useSandbox({ config })
    await control('PUT', '/faults/odd', { hang: true })
    const leave = new AbortController()
    const request = client.chat.completions.create({ model: 'odd', messages }, { signal: leave.signal })
    const failed = expect(request).rejects.toThrow()
    await pollUntil(async () => (await readLog())[0]?.begun, { what: 'the provider begins' })
    leave.abort()
    await failed
    const logged = await pollUntil(async () => (await readLog()).find((each) => each.clientGoneAt !== undefined), {
      what: 'the provider notices that its client is gone',
    })
    expect(logged).toMatchObject({ status: 0, finished: false, billed: asUsd(priceOf(0)) })
  })
})

test('log and bill outlive the process, also after SIGKILL', async () => {
  const folder = await useScratchFolder()
  const logFile = join(folder, 'requests.jsonl')
  const start = async (): Promise<Awaited<ReturnType<typeof startProcess>>> =>
    startProcess({
      name: 'sandbox',
      entry: new URL('../../src/sandbox/main.ts', import.meta.url).pathname,
      env: { ...process.env, SANDBOX_PORT: '0', SANDBOX_LOG_FILE: logFile, SANDBOX_CONFIG: JSON.stringify(config) },
      logFile: join(folder, 'sandbox.log'),
    })
  const ready = z.object({ url: z.string(), controlUrl: z.string() })

  const first = await start()
  const { client, readLog } = sandboxAt(ready.parse(first.ready))
  await client.chat.completions.create({ model: 'odd', messages })
  const before = await readLog()
  first.kill('SIGKILL')
  await first.exited

  const second = await start()
  const again = sandboxAt(ready.parse(second.ready))
  await again.client.chat.completions.create({ model: 'odd', messages })
  const after = await again.readLog()
  second.kill('SIGTERM')
  expect(await second.exited).toMatchObject({ code: 0 })
  expect(after.slice(0, 1)).toEqual(before)
  expect(after.map((request) => request.seq)).toEqual([1, 2])
  expect(await readFile(logFile, 'utf8')).not.toContain('sandbox-key')
})
