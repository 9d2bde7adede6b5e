import { createProvider } from '#providers/create-provider.ts'
import type { ProviderKind } from '#contracts/names.ts'
import { expect, test } from 'vitest'
import { messageOf, textBlock } from '../support/anthropic-message.ts'
import { chatOf, chunkOf, dataOf, useUpstream } from '../support/upstream.ts'

/** Nobody waits so long here. */
const LONG_MS = 600_000
const USAGE = { usage: { prompt_tokens: 12, completion_tokens: 3, total_tokens: 15 } }

function providerAt(baseUrl: string, kind: ProviderKind = 'openai') {
  return createProvider({ name: 'p', kind, baseUrl, apiKey: 'sk-secret' }, { nowMs: () => 0 })
}

test('a refusal whose text goes on and on is read to its beginning, and its connection is left', async () => {
  const closed = Promise.withResolvers<void>()
  let written = 0
  const upstream = await useUpstream((response) => {
    response.on('close', closed.resolve)
    response.writeHead(503, { 'content-type': 'text/plain' })
    const write = () => {
      while (!response.destroyed && response.write('busy '.repeat(10_000))) written += 50_000
    }
    response.on('drain', write)
    write()
  })
  const result = await providerAt(upstream.url).chat(chatOf({ timeoutMs: 60_000 }))
  expect(result).toMatchObject({ outcome: 'overloaded', detail: expect.stringContaining('503 busy busy') })
  await closed.promise
  expect(written).toBeLessThan(32_000_000)
})

test('a refusal that says nothing more is not waited for as long as an answer', async () => {
  const upstream = await useUpstream((response) => {
    response.writeHead(429, { 'content-type': 'application/json', 'retry-after': '3' }).write('{')
  })
  const result = await providerAt(upstream.url).chat(chatOf({ timeoutMs: 600_000 }))
  expect(result).toMatchObject({ outcome: 'rate_limited', httpStatus: 429, retryAfterMs: 3_000 })
}, 60_000)

test('a redirect says what to correct', async () => {
  const upstream = await useUpstream((response) => void response.writeHead(308, { location: '/v2' }).end())
  const detail = "308 is a redirect, which is not followed: correct the provider's baseUrl"
  expect(await providerAt(upstream.url).chat(chatOf())).toMatchObject({ detail })
})

test.each([
  ['its bill', [chunkOf({}, 'stop'), chunkOf({}, null, { choices: [], ...USAGE })], 'billed'],
  ['no bill', [chunkOf({}, 'stop')], 'no bill'],
])(
  'an upstream that says neither more nor goodbye after the end and %s is left soon',
  async (_, end, bill) => {
    const closed = Promise.withResolvers<void>()
    const upstream = await useUpstream((response) => {
      response.on('close', closed.resolve)
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write([chunkOf({ content: 'In 1711.' }), ...end].map(dataOf).join(''))
    })
    const result = await providerAt(upstream.url).chat(chatOf({ timeoutMs: LONG_MS }))
    const usage = bill === 'billed' ? { input: 12, output: 3 } : null
    expect(result).toMatchObject({ outcome: 'answered', received: { text: 'In 1711.', usage } })
    await closed.promise
  },
  60_000,
)

test('a message is over with its last event, though its connection is not', async () => {
  const closed = Promise.withResolvers<void>()
  const upstream = await useUpstream((response) => {
    response.on('close', closed.resolve)
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    for (const event of messageOf(textBlock(0, 'In 1711.'))) response.write(`event: ${event.type}\n${dataOf(event)}`)
  })
  const result = await providerAt(upstream.url, 'anthropic').chat(chatOf({ timeoutMs: LONG_MS }))
  expect(result).toMatchObject({ outcome: 'answered', received: { text: 'In 1711.' } })
  await closed.promise
}, 60_000)
