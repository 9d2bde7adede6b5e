import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { createServer } from 'node:http'
import { createServer as createTcpServer, type AddressInfo, type Server } from 'node:net'
import { createOpenAiCompatible } from '#providers/openai-compatible.ts'
import { retryAfterMs } from '#providers/retry-after.ts'
import type { ProviderChatRequest } from '#providers/provider.ts'
import { findFreePort } from '#local/free-port.ts'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { useSandbox } from '../support/sandbox.ts'

const NOW_MS = Date.parse('2026-01-01T00:00:00Z')

function ask(change: Partial<ProviderChatRequest> = {}): ProviderChatRequest {
  return {
    upstreamModel: 'sandbox-steady',
    body: {
      messages: [
        { role: 'user', content: '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?' },
      ],
    },
    maxOutputTokens: 50,
    clientRequestId: 'call:1',
    timeoutMs: 5_000,
    signal: new AbortController().signal,
    ...change,
  }
}

function providerAt(baseUrl: string, apiKey = 'sandbox-key') {
  return createOpenAiCompatible({ name: 'p', baseUrl, apiKey, nowMs: () => NOW_MS })
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  // A server that listens on TCP has an address of this form.
  // oxlint-disable-next-line typescript/consistent-type-assertions
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`
}

test.each([
  [
    { rateLimit: true, retryAfterMs: 70 },
    { outcome: 'rate_limited', httpStatus: 429, retryAfterMs: 70 },
  ],
  [{ serverError: true }, { outcome: 'overloaded', httpStatus: 500 }],
  [{ overloaded: true }, { outcome: 'overloaded', httpStatus: 503 }],
  [{ contextLength: true }, { outcome: 'context_too_long', httpStatus: 400 }],
  [{ garbage: 'not-json' }, { outcome: 'malformed_answer' }],
  [{ garbage: 'not-completion' }, { outcome: 'malformed_answer' }],
  [{ garbage: 'invalid-sse' }, { outcome: 'malformed_answer' }],
  [{ emptyChoices: true }, { outcome: 'cut_stream' }],
  [{ contentFilter: true }, { outcome: 'content_filter' }],
  [{ cutStreamAfterChunks: 2 }, { outcome: 'cut_stream', sent: true }],
  [{ usageMissing: true }, { outcome: 'answered', received: { usage: null, finishReason: 'stop' } }],
])('a provider with %j gives %j, from one request', async (fault, expected) => {
  const sandbox = await useSandbox()
  await sandbox.control('PUT', '/faults/sandbox-steady', fault)
  expect(await providerAt(sandbox.url).chat(ask())).toMatchObject(expected)
  expect(await sandbox.control('GET', '/log')).toHaveLength(1)
})

test('an answer comes with the usage that the provider reported', async () => {
  const sandbox = await useSandbox()
  const result = await providerAt(sandbox.url).chat(ask())
  expect(result).toMatchObject({
    outcome: 'answered',
    received: { text: expect.stringContaining('1711'), finishReason: 'stop' },
  })
  const [logged] = await sandbox.readLog()
  expect(result.received.usage).toMatchObject({
    input: logged?.usage.promptTokens,
    cachedInput: 0,
    output: logged?.usage.completionTokens,
  })
})

test('a wrong key, an unknown model and a refused connection are told apart', async () => {
  const sandbox = await useSandbox()
  expect(await providerAt(sandbox.url, 'wrong').chat(ask())).toMatchObject({ outcome: 'authentication' })
  expect(await providerAt(sandbox.url).chat(ask({ upstreamModel: 'none' }))).toMatchObject({
    outcome: 'model_not_found',
  })
  const nobody = `http://127.0.0.1:${await findFreePort()}/v1`
  expect(await providerAt(nobody).chat(ask())).toMatchObject({ outcome: 'network_before_send', sent: false })
})

test('a connection that dies without an answer may have been executed', async () => {
  const url = await listen(createTcpServer((socket) => socket.once('data', () => socket.destroy())))
  expect(await providerAt(url).chat(ask())).toMatchObject({ outcome: 'network_after_send', sent: true })
})

test('a lack of credit at the provider is not a rate limit', async () => {
  const server = createServer((_request, response) => {
    response.writeHead(429, { 'content-type': 'application/json' })
    response.end(JSON.stringify({ error: { code: 'insufficient_quota', message: 'no credit' } }))
  })
  expect(await providerAt(await listen(server)).chat(ask())).toMatchObject({ outcome: 'quota_gone' })
})

test.each([502, 504])('a %d of a proxy may hide an executed request', async (status) => {
  const server = createServer((_request, response) => response.writeHead(status).end('<html>bad gateway</html>'))
  expect(await providerAt(await listen(server)).chat(ask())).toMatchObject({
    outcome: 'network_after_send',
    sent: true,
  })
})

test.each([
  [
    { id: { not: 'text' }, finish: 'stop', usage: { prompt_tokens: 9007199254740991, completion_tokens: 1 } },
    'answered',
  ],
  [{ id: 'x'.repeat(5_000), finish: 1, usage: { prompt_tokens: 1.5, completion_tokens: -1 } }, 'cut_stream'],
  [{ id: 7, finish: null, usage: { prompt_tokens: 0, completion_tokens: 0 } }, 'cut_stream'],
])('values of wrong types (%j) are not taken over', async ({ id, finish, usage }, outcome) => {
  const server = createServer((_request, response) => {
    const chunk = { id, choices: [{ delta: { content: 'half an answer' }, finish_reason: finish }], usage }
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.end(`data: ${JSON.stringify(chunk)}\n\n`)
  })
  const result = await providerAt(await listen(server)).chat(ask())
  expect(result.outcome).toBe(outcome)
  const { providerRequestId, finishReason, text } = result.received
  expect(providerRequestId === null || providerRequestId.length <= 200).toBe(true)
  expect(finishReason === null || typeof finishReason === 'string').toBe(true)
  expect(text).toBe('half an answer')
})

test('a silence ends with the time-out, an abort ends at once, and an abort before sending sends nothing', async () => {
  const sandbox = await useSandbox()
  await sandbox.control('PUT', '/faults/sandbox-steady', { hang: true })
  const provider = providerAt(sandbox.url)
  expect(await provider.chat(ask({ timeoutMs: 100 }))).toMatchObject({ outcome: 'timeout', sent: true })
  const controller = new AbortController()
  const pending = provider.chat(ask({ signal: controller.signal }))
  controller.abort()
  expect(await pending).toMatchObject({ outcome: 'aborted' })
  const before = await sandbox.readLog()
  expect(await provider.chat(ask({ signal: AbortSignal.abort() }))).toMatchObject({ outcome: 'aborted', sent: false })
  expect(await sandbox.readLog()).toHaveLength(before.length)
})

test.each([
  [{ 'retry-after-ms': '1500' }, 1_500],
  [{ 'retry-after-ms': '12.3', 'retry-after': '9' }, 13],
  [{ 'retry-after': '2' }, 2_000],
  [{ 'retry-after': 'Thu, 01 Jan 2026 00:00:05 GMT' }, 5_000],
  [{ 'retry-after': 'Wed, 31 Dec 2025 00:00:00 GMT' }, null],
  [{ 'retry-after': '99999999' }, 3_600_000],
  [{ 'retry-after': '-5' }, null],
  [{ 'retry-after': 'soon' }, null],
  [{}, null],
])('the headers %j ask to wait %d ms', (headers, expected) => {
  expect(retryAfterMs(new Headers(Object.entries(headers)), NOW_MS)).toBe(expected)
})

/** Resolved with the next message of a diagnostics channel. */
function once(name: string): Promise<void> {
  return new Promise((resolve) => {
    const hear = (): void => {
      unsubscribe(name, hear)
      resolve()
    }
    subscribe(name, hear)
  })
}

test('a connection serves the next request when the stream ends a moment after its answer', async () => {
  let connections = 0
  const server = createServer((request, response) => {
    request.resume()
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    const choices = [{ index: 0, delta: { content: 'Yes.' }, finish_reason: 'stop' }]
    response.write(`data: ${JSON.stringify({ id: '1', choices })}\n\ndata: [DONE]\n\n`)
    void delay(20).then(() => response.end())
  })
  server.on('connection', () => (connections += 1))
  const provider = providerAt(await listen(server))
  const ids = ['call:1', 'call:2', 'call:3', 'call:4', 'call:5', 'call:6']
  for (const clientRequestId of ids) {
    const isOver = once('undici:request:trailers')
    expect(await provider.chat(ask({ clientRequestId }))).toMatchObject({ outcome: 'answered' })
    await isOver
  }
  // One that is just being freed when the next request comes may leave that to another.
  expect(connections).toBeLessThan(ids.length)
})

test('an upstream that does not end its stream after the answer is left', async () => {
  const closed = Promise.withResolvers<void>()
  const server = createServer((request, response) => {
    request.resume()
    response.on('close', () => closed.resolve())
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    const choices = [{ index: 0, delta: { content: 'Yes.' }, finish_reason: 'stop' }]
    response.write(`data: ${JSON.stringify({ id: '1', choices })}\n\ndata: [DONE]\n\n`)
  })
  expect(await providerAt(await listen(server)).chat(ask())).toMatchObject({ outcome: 'answered' })
  await closed.promise
})
