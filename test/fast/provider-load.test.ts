import { createProvider } from '#providers/create-provider.ts'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import { expect, test } from 'vitest'
import { chatOf, chunkOf, dataOf, DONE, sendEvents, useUpstream } from '../support/upstream.ts'

function providerAt(baseUrl: string) {
  return createProvider({ name: 'p', kind: 'openai', baseUrl, apiKey: 'sk-secret' }, { nowMs: () => Date.now() })
}

test('a body that never ends is cut off', async () => {
  const upstream = await useUpstream((response) => {
    response.writeHead(200, { 'content-type': 'application/json' })
    const write = () => {
      while (!response.destroyed && response.write(' '.repeat(1_000_000)));
    }
    response.on('drain', write)
    write()
  })
  const result = await providerAt(upstream.url).chat(chatOf({ timeoutMs: 30_000 }))
  expect(result).toMatchObject({ outcome: 'malformed_answer', detail: 'the answer has more than 134217728 bytes' })
})

test('a thousand streams at once are each answered with their own text', async () => {
  const upstream = await useUpstream((response, { headers }) => {
    const id = String(headers['x-client-request-id'])
    sendEvents(response, [chunkOf({ content: `answer to ${id}` }), chunkOf({}, 'stop'), DONE])
  })
  const provider = providerAt(upstream.url)
  const ids = Array.from({ length: 1_000 }, (_, number) => `call-${number}:1`)
  const results = await Promise.all(
    ids.map((clientRequestId) => provider.chat(chatOf({ clientRequestId, timeoutMs: 60_000 }))),
  )
  expect(results.map(({ received }) => received.text)).toEqual(ids.map((id) => `answer to ${id}`))
  expect(upstream.requests).toHaveLength(1_000)
}, 90_000)

test.each([
  ['gzip', gzipSync],
  ['deflate', deflateSync],
  ['br', brotliCompressSync],
])('an answer that comes compressed with %s, which nobody asked for, is read', async (encoding, compress) => {
  const events = `${dataOf(chunkOf({ content: 'In 1711.' }, 'stop'))}${DONE}`
  const upstream = await useUpstream((response, { headers }) => {
    expect(headers['accept-encoding']).toBe('identity')
    response.writeHead(200, { 'content-type': 'text/event-stream', 'content-encoding': encoding }).end(compress(events))
  })
  const result = await providerAt(upstream.url).chat(chatOf())
  expect(result).toMatchObject({ outcome: 'answered', received: { text: 'In 1711.' } })
})

test('a compressed answer that is cut is a cut', async () => {
  const whole = gzipSync(dataOf(chunkOf({ content: 'In 1711.' })).repeat(10_000))
  const upstream = await useUpstream((response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'content-encoding': 'gzip' })
    response.write(whole.subarray(0, whole.length / 2), () => response.destroy())
  })
  expect(await providerAt(upstream.url).chat(chatOf())).toMatchObject({ outcome: 'cut_stream', sent: true })
})
