import { createSecureServer } from 'node:http2'
import { createServer } from 'node:http'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { createProvider } from '#providers/create-provider.ts'
import { connectionsBy } from '#providers/connections.ts'
import type { Provider } from '#providers/provider.ts'
import { generate } from 'selfsigned'
import { expect, onTestFinished, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { portOf, useProxy, type TestProxy } from '../support/proxy.ts'
import { chatOf, chunkOf, dataOf, DONE, listen } from '../support/upstream.ts'

const { private: key, cert } = await generate([{ name: 'commonName', value: 'provider.test' }], {
  keyType: 'ec',
  extensions: [{ name: 'subjectAltName', altNames: [{ type: 2, value: 'provider.test' }] }],
})
const STREAM = `${dataOf(chunkOf({ content: 'In 1711.' }, 'stop'))}${DONE}`

interface Seen {
  readonly authorization: string | undefined
  readonly version: string
}

/** A provider with TLS that speaks HTTP/2 too, which nobody outside the proxy finds. */
async function useSecureProvider(): Promise<{ readonly port: number; readonly seen: readonly Seen[] }> {
  const trusted = getCACertificates('default')
  setDefaultCACertificates([...trusted, cert])
  const seen: Seen[] = []
  const server = createSecureServer({ cert, key, allowHTTP1: true }, (request, response) => {
    const { authorization } = request.headers
    seen.push({ authorization, version: request.httpVersion })
    request.resume().on('end', () => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.end(STREAM)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    setDefaultCACertificates(trusted)
    server.close()
  })
  return { port: portOf(server.address()), seen }
}

function providerBy(proxy: TestProxy | undefined, baseUrl: string, except = ''): Provider {
  const connections = connectionsBy(proxy && { http: proxy.url, https: proxy.url, except })
  onTestFinished(() => connections.destroy())
  const settings = { name: 'p', kind: 'openai', baseUrl, apiKey: 'sk-secret' } as const
  return createProvider(settings, { nowMs: () => Date.now(), connections })
}

test('a provider behind a proxy is reached through a tunnel, which sees neither key nor prompt', async () => {
  const { port, seen } = await useSecureProvider()
  const proxy = await useProxy({ 'provider.test': port })
  const provider = providerBy(proxy, 'https://provider.test/v1')
  expect(await provider.chat(chatOf())).toMatchObject({ outcome: 'answered', received: { text: 'In 1711.' } })
  expect(await provider.chat(chatOf({ clientRequestId: 'call:2' }))).toMatchObject({ outcome: 'answered' })
  expect(proxy.asked[0]).toBe('CONNECT provider.test:443')
  expect(seen).toEqual(Array.from({ length: 2 }, () => ({ authorization: 'Bearer sk-secret', version: '1.1' })))
})

test('what opens the proxy is sent to the proxy, and to nobody else', async () => {
  const { port } = await useSecureProvider()
  const proxy = await useProxy({ 'provider.test': port })
  const named = { ...proxy, url: proxy.url.replace('http://', 'http://purser:s3cret@') }
  expect(await providerBy(named, 'https://provider.test/v1').chat(chatOf())).toMatchObject({ outcome: 'answered' })
  expect(proxy.opened).toEqual([`Basic ${Buffer.from('purser:s3cret').toString('base64')}`])
})

test('a provider without TLS is asked through the proxy, whole', async () => {
  const paths: (string | undefined)[] = []
  const server = createServer((request, response) => {
    paths.push(request.url)
    request.resume().on('end', () => response.writeHead(200, { 'content-type': 'text/event-stream' }).end(STREAM))
  })
  await listen(server)
  const proxy = await useProxy({ 'model.test': portOf(server.address()) })
  expect(await providerBy(proxy, 'http://model.test/v1').chat(chatOf())).toMatchObject({ outcome: 'answered' })
  expect(proxy.asked).toEqual(['POST http://model.test/v1/chat/completions'])
  expect(paths).toEqual(['/v1/chat/completions'])
})

test('hosts that are excepted, and this machine, are asked directly', async () => {
  const server = createServer((request, response) => {
    request.resume().on('end', () => response.writeHead(200, { 'content-type': 'text/event-stream' }).end(STREAM))
  })
  const baseUrl = await listen(server)
  const proxy = await useProxy({})
  expect(await providerBy(proxy, baseUrl).chat(chatOf())).toMatchObject({ outcome: 'answered' })
  const excepting = providerBy(proxy, 'https://model.internal.invalid/v1', 'elsewhere.test, .internal.invalid')
  expect(await excepting.chat(chatOf())).toMatchObject({ outcome: 'network_before_send', sent: false })
  expect(proxy.asked).toEqual([])
})

test.each([407, 403, 502])('a tunnel that the proxy refuses with %d sent nothing', async (refuses) => {
  const proxy = await useProxy({}, { refuses })
  const result = await providerBy(proxy, 'https://provider.test/v1').chat(chatOf())
  expect(result).toMatchObject({
    outcome: 'network_before_send',
    sent: false,
    detail: expect.stringContaining(`Proxy response (${refuses})`),
  })
  expect(proxy.asked).toHaveLength(1)
})

test('a proxy that says nothing, and an abort meanwhile, sent nothing', async () => {
  const proxy = await useProxy({}, { isSilent: true })
  const provider = providerBy(proxy, 'https://provider.test/v1')
  expect(await provider.chat(chatOf({ timeoutMs: 200 }))).toMatchObject({ outcome: 'network_before_send', sent: false })
  const aborting = new AbortController()
  const pending = provider.chat(chatOf({ signal: aborting.signal }))
  await pollUntil(() => proxy.asked.length === 2, { what: 'the second tunnel', intervalMs: 5 })
  aborting.abort()
  expect(await pending).toMatchObject({ outcome: 'aborted', sent: false })
})

test('a proxy that never opens a tunnel is left as soon as an upstream that takes no connection', async () => {
  const proxy = await useProxy({}, { isSilent: true })
  const result = await providerBy(proxy, 'https://provider.test/v1').chat(chatOf({ timeoutMs: 600_000 }))
  expect(result).toMatchObject({ outcome: 'network_before_send', sent: false })
}, 60_000)

test('a proxy that is away sent nothing', async () => {
  const away = { url: 'http://127.0.0.1:1', asked: [], opened: [] }
  const result = await providerBy(away, 'https://provider.test/v1').chat(chatOf())
  expect(result).toMatchObject({ outcome: 'network_before_send', sent: false })
})
