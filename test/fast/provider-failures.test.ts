import { createServer as createTcpServer, type Socket } from 'node:net'
import { createProvider } from '#providers/create-provider.ts'
import type { ProviderResult } from '#providers/provider.ts'
import { expect, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { chatOf, chunkOf, dataOf, DONE, listen, sendEvents, sendJson, useUpstream } from '../support/upstream.ts'

const NOW_MS = Date.parse('2026-01-01T00:00:00Z')

function providerAt(baseUrl: string, apiKey = 'sk-secret') {
  return createProvider({ name: 'p', kind: 'openai', baseUrl, apiKey }, { nowMs: () => NOW_MS })
}

async function refusedWith(
  status: number,
  error: unknown,
  headers: Record<string, string> = {},
): Promise<ProviderResult> {
  const upstream = await useUpstream((response) => {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value)
    sendJson(response, { error }, status)
  })
  const result = await providerAt(upstream.url).chat(chatOf())
  expect(upstream.requests).toHaveLength(1)
  return result
}

async function streamedWith(events: readonly unknown[]): Promise<ProviderResult> {
  const upstream = await useUpstream((response) => sendEvents(response, events))
  const result = await providerAt(upstream.url).chat(chatOf())
  expect(upstream.requests).toHaveLength(1)
  return result
}

test.each([
  // OpenAI
  [400, { code: 'context_length_exceeded', message: 'too long' }, 'context_too_long'],
  [400, { code: null, type: 'invalid_request_error', message: "Unknown parameter: 'x'" }, 'invalid_request'],
  [400, { code: 'content_policy_violation', message: 'no' }, 'content_filter'],
  [401, { code: 'invalid_api_key', message: 'no' }, 'authentication'],
  [403, { code: 'model_not_found', message: 'Project does not have access to model' }, 'model_not_found'],
  [403, { code: 'unsupported_country_region_territory', message: 'no' }, 'authentication'],
  [404, { code: 'model_not_found', message: 'no' }, 'model_not_found'],
  [429, { code: 'rate_limit_exceeded', type: 'tokens', message: 'slow' }, 'rate_limited'],
  [429, { code: 'insufficient_quota', type: 'insufficient_quota', message: 'no credit' }, 'quota_gone'],
  [429, { code: 'billing_not_active', message: 'no' }, 'quota_gone'],
  [500, { type: 'server_error', message: 'oh' }, 'overloaded'],
  [503, { code: 'overloaded', message: 'oh' }, 'overloaded'],
  // DeepSeek
  [402, { message: 'Insufficient Balance', type: 'unknown_error', code: 'invalid_request_error' }, 'quota_gone'],
  [
    400,
    { message: 'Model Not Exist', type: 'invalid_request_error', code: 'invalid_request_error' },
    'model_not_found',
  ],
  // Groq
  [
    413,
    { message: 'Request too large for model on tokens per minute', type: 'tokens', code: 'rate_limit_exceeded' },
    'context_too_long',
  ],
  [498, { message: 'flex tier capacity exceeded', code: 'capacity_exceeded' }, 'overloaded'],
  // vLLM, llama.cpp, xAI
  [
    400,
    { message: "This model's maximum context length is 4096 tokens. However", type: 'BadRequestError', code: 400 },
    'context_too_long',
  ],
  [
    400,
    { code: 400, message: 'the request exceeds the available', type: 'exceed_context_size_error' },
    'context_too_long',
  ],
  [429, 'Your team has either used all available credits or reached its monthly spending limit', 'quota_gone'],
  // OpenRouter
  [402, { code: 402, message: 'This request requires more credits, or fewer max_tokens' }, 'quota_gone'],
  [403, { code: 403, message: 'flagged', metadata: { reasons: ['violence'], flagged_input: 'x' } }, 'content_filter'],
  [400, { code: 400, message: 'foo/bar is not a valid model ID' }, 'model_not_found'],
  [408, { code: 408, message: 'timed out' }, 'timeout'],
  [502, { code: 502, message: 'invalid response' }, 'network_after_send'],
  [524, { message: 'a timeout occurred' }, 'network_after_send'],
  [422, { message: 'no' }, 'invalid_request'],
  [409, { message: 'lock' }, 'overloaded'],
])('%d with %j is %s, from one request', async (status, error, outcome) => {
  expect(await refusedWith(status, error)).toMatchObject({ outcome, sent: true, httpStatus: status })
})

test('a refusal tells how long to wait, and the id to ask its support with', async () => {
  const headers = { 'retry-after': '7', 'x-request-id': 'req_1', 'x-should-retry': 'true' }
  expect(await refusedWith(429, { message: 'slow' }, headers)).toMatchObject({
    outcome: 'rate_limited',
    retryAfterMs: 7_000,
    received: { providerRequestId: 'req_1' },
  })
})

test('a key never appears in what is kept of an error, and a long error is cut', async () => {
  const message = `Incorrect API key provided: sk-secret. ${'x'.repeat(9_999)}`
  const result = await refusedWith(401, { message }, { 'x-request-id': 'of-sk-secret' })
  expect(result).toMatchObject({
    detail: expect.stringContaining('provided: ….'),
    received: { providerRequestId: 'of-…' },
  })
  expect(JSON.stringify(result)).not.toContain('sk-secret')
  expect(JSON.stringify(result).length).toBeLessThan(1_000)
})

test('a redirect is not followed: the prompt stays with the host that was configured', async () => {
  const other = await useUpstream((response) => sendJson(response, {}))
  const upstream = await useUpstream((response) => void response.writeHead(307, { location: other.url }).end())
  expect(await providerAt(upstream.url).chat(chatOf())).toMatchObject({ outcome: 'model_not_found', httpStatus: 307 })
  expect(other.requests).toHaveLength(0)
})

test.each([
  [{ code: 429, message: 'slow' }, 'rate_limited', 429],
  [{ code: '503', message: 'none free' }, 'overloaded', 503],
  [{ code: 502, message: 'down' }, 'network_after_send', 502],
  [{ code: 402, message: 'no credit' }, 'quota_gone', 402],
  [{ code: 'rate_limit_exceeded', message: 'slow' }, 'rate_limited', null],
  [{ code: 'context_length_exceeded', message: 'long' }, 'context_too_long', null],
  [{ type: 'server_error', message: 'something' }, 'cut_stream', null],
  ['just words', 'cut_stream', null],
  [true, 'cut_stream', null],
])('the error %j inside a stream is %s', async (error, outcome, httpStatus) => {
  expect(await streamedWith([dataOf({ error }), DONE])).toMatchObject({ outcome, httpStatus, sent: true })
})

test('an event that is named an error is one, whatever its data is', async () => {
  const outcome = 'cut_stream'
  expect(await streamedWith(['event: error\ndata: internal error\n\n'])).toMatchObject({
    outcome,
    detail: 'internal error',
  })
  const error = { error: { code: 503, message: 'none free' } }
  expect(await streamedWith([`event: error\n${dataOf(error)}`])).toMatchObject({ outcome: 'overloaded' })
})

test('an error that vLLM writes without an envelope is one', async () => {
  const error = { object: 'error', message: 'maximum context length is 10', type: 'BadRequestError', code: 400 }
  expect(await streamedWith([error, DONE])).toMatchObject({ outcome: 'context_too_long', httpStatus: 400 })
})

test('an error after the first piece is a cut, whatever its code: what came is billed', async () => {
  const chunk = chunkOf({ content: '' }, 'error', { error: { code: 429, message: 'Provider disconnected' } })
  expect(await streamedWith([chunkOf({ content: 'In 17' }), chunk, DONE])).toMatchObject({
    outcome: 'cut_stream',
    detail: 'Provider disconnected',
    received: { text: 'In 17', finishReason: null },
  })
})

test('an error after an answer that began empty is a cut: its prompt may be billed', async () => {
  const error = { error: { code: 529, message: 'Overloaded', type: 'overloaded_error' } }
  expect(await streamedWith([error, DONE])).toMatchObject({ outcome: 'overloaded' })
  expect(await streamedWith([chunkOf({ role: 'assistant', content: '' }), error, DONE])).toMatchObject({
    outcome: 'cut_stream',
    httpStatus: 529,
    received: { text: '', providerRequestId: 'chatcmpl-1' },
  })
})

test('comments and chunks without a choice are passed over', async () => {
  const events = [
    ': OPENROUTER PROCESSING\n\n',
    'data: null\n\n',
    'data: 7\n\n',
    dataOf({ id: 'x', choices: [] }),
    dataOf({ choices: [null] }),
    dataOf({ choices: [{ delta: null, finish_reason: null }] }),
    chunkOf({ content: 'In 1711.' }),
    ': ping\n\n',
    chunkOf({}, 'stop'),
    DONE,
  ]
  expect(await streamedWith(events)).toMatchObject({ outcome: 'answered', received: { text: 'In 1711.' } })
})

test.each([
  [[': only a comment\n\n'], 'malformed_answer'],
  [[], 'malformed_answer'],
  [[DONE], 'malformed_answer'],
  [[chunkOf({ content: 'In' }), DONE], 'cut_stream'],
  [[chunkOf({ content: 'In' }), 'data: {"half":\n\n'], 'malformed_answer'],
])('the stream %j without an end is %s', async (events, outcome) => {
  expect(await streamedWith(events)).toMatchObject({ outcome, sent: true })
})

test('a connection that cannot be made sends nothing, however long it takes', async () => {
  // It takes connections, and never answers a handshake.
  const sockets: Socket[] = []
  const address = await listen(createTcpServer((socket) => void sockets.push(socket)))
  const provider = providerAt(address.replace('http:', 'https:'))
  expect(await provider.chat(chatOf({ timeoutMs: 150 }))).toMatchObject({ outcome: 'network_before_send', sent: false })
  const aborting = new AbortController()
  const pending = provider.chat(chatOf({ signal: aborting.signal }))
  await pollUntil(() => sockets.length === 2, { what: 'the second connection', intervalMs: 5 })
  aborting.abort()
  expect(await pending).toMatchObject({ outcome: 'aborted', sent: false })
  for (const socket of sockets) socket.destroy()
})

test('a handshake that is cut off, and one that fails, sent nothing', async () => {
  const cut = await listen(createTcpServer((socket) => socket.once('data', () => socket.destroy())))
  const plain = await listen(
    createTcpServer((socket) => socket.once('data', () => socket.end('HTTP/1.1 400 Bad\r\n\r\n'))),
  )
  for (const address of [cut, plain]) {
    const provider = providerAt(address.replace('http:', 'https:'))
    expect(await provider.chat(chatOf())).toMatchObject({ outcome: 'network_before_send', sent: false })
  }
})

test('a name that does not exist sends nothing', async () => {
  const result = await providerAt('http://nobody.invalid/v1').chat(chatOf())
  expect(result).toMatchObject({ outcome: 'network_before_send', sent: false })
})

test('a kept connection that dies under the next request may have carried it', async () => {
  let requests = 0
  const body = `${dataOf(chunkOf({ content: 'x' }, 'stop'))}${DONE}`
  const server = createTcpServer((socket) => {
    socket.on('error', () => undefined)
    socket.on('data', () => {
      requests += 1
      if (requests > 1) socket.resetAndDestroy()
      else
        socket.write(
          `HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
        )
    })
  })
  const provider = providerAt(await listen(server))
  expect(await provider.chat(chatOf())).toMatchObject({ outcome: 'answered' })
  expect(await provider.chat(chatOf())).toMatchObject({ outcome: 'network_after_send', sent: true })
  expect(requests).toBe(2)
})

test.each([
  ['before its headers', false],
  ['after its headers and a comment', true],
])('an upstream that falls silent %s is given up at the time for the first byte', async (_case, hasHeaders) => {
  const upstream = await useUpstream((response) => {
    if (hasHeaders) response.writeHead(200, { 'content-type': 'text/event-stream' }).write(': working\n\n')
  })
  const result = await providerAt(upstream.url).chat(chatOf({ firstByteTimeoutMs: 150 }))
  expect(result).toMatchObject({ outcome: 'timeout', sent: true, detail: 'no first byte within 150 ms' })
  expect(upstream.requests).toHaveLength(1)
})

test('an upstream that has begun has the whole time', async () => {
  const upstream = await useUpstream((response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(dataOf(chunkOf({ content: 'In' })))
  })
  const result = await providerAt(upstream.url).chat(chatOf({ firstByteTimeoutMs: 100, timeoutMs: 400 }))
  expect(result).toMatchObject({
    outcome: 'timeout',
    detail: 'no whole answer within 400 ms',
    received: { text: 'In' },
  })
})

test('an answer that comes in one piece has the whole time: its first byte is the last thing to come', async () => {
  const upstream = await useUpstream((response) => {
    const message = { role: 'assistant', content: 'In 1711.' }
    setTimeout(() => sendJson(response, { choices: [{ message, finish_reason: 'stop' }] }), 300)
  })
  const result = await providerAt(upstream.url).chat(chatOf({ streaming: false, firstByteTimeoutMs: 100 }))
  expect(result).toMatchObject({ outcome: 'answered' })
})

test('a refusal whose text never ends is a refusal', async () => {
  const upstream = await useUpstream((response) => {
    response.writeHead(429, { 'content-type': 'application/json', 'retry-after': '3' }).write('{')
  })
  const result = await providerAt(upstream.url).chat(chatOf({ timeoutMs: 200 }))
  expect(result).toMatchObject({ outcome: 'rate_limited', httpStatus: 429, retryAfterMs: 3_000 })
})

test.each([
  ['before the answer', false],
  ['in the middle of it', true],
])('an abort %s closes the connection at once, and keeps what came', async (_case, hasBegun) => {
  let isClosed = false
  const upstream = await useUpstream((response) => {
    response.on('close', () => (isClosed = true))
    if (hasBegun)
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write(dataOf(chunkOf({ content: 'In' })))
  })
  const aborting = new AbortController()
  let begun = false
  const pending = providerAt(upstream.url).chat(chatOf({ signal: aborting.signal, onDelta: () => (begun = true) }))
  await pollUntil(() => upstream.requests.length === 1 && begun === hasBegun, { what: 'the request', intervalMs: 5 })
  aborting.abort()
  expect(await pending).toMatchObject({ outcome: 'aborted', sent: true, received: { text: hasBegun ? 'In' : '' } })
  await pollUntil(() => isClosed, { what: 'the closed connection', deadlineMs: 500, intervalMs: 5 })
  expect(upstream.requests).toHaveLength(1)
})

test('garbage in the middle of a stream closes its connection', async () => {
  let isClosed = false
  const upstream = await useUpstream((response) => {
    response.on('close', () => (isClosed = true))
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: {"half":\n\n')
  })
  expect(await providerAt(upstream.url).chat(chatOf())).toMatchObject({ outcome: 'malformed_answer' })
  await pollUntil(() => isClosed, { what: 'the closed connection', deadlineMs: 500, intervalMs: 5 })
})
