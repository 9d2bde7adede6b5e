import { createProvider } from '#providers/create-provider.ts'
import type { ProviderResult } from '#providers/provider.ts'
import { createServer as createTcpServer } from 'node:net'
import { findFreePort } from '#local/free-port.ts'
import { expect, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { chatOf, dataOf, listen, sendJson, sendMessageEvents, useUpstream } from '../support/upstream.ts'

function providerAt(baseUrl: string) {
  return createProvider({ name: 'p', kind: 'anthropic', baseUrl, apiKey: 'secret' }, { nowMs: () => 0 })
}

async function refusedWith(
  status: number,
  error: object,
  headers: Record<string, string> = {},
): Promise<ProviderResult> {
  const upstream = await useUpstream((response) => {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value)
    sendJson(response, { type: 'error', error, request_id: 'req_1' }, status)
  })
  const result = await providerAt(upstream.url).chat(chatOf())
  expect(upstream.requests).toHaveLength(1)
  return result
}

const invalid = (message: string) => ({ type: 'invalid_request_error', message })

test.each([
  [400, invalid('messages.0: text content blocks must be non-empty'), 'invalid_request'],
  [400, invalid('prompt is too long: 210000 tokens > 200000 maximum'), 'context_too_long'],
  [400, invalid('input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000'), 'context_too_long'],
  [400, invalid('Your credit balance is too low to access the Anthropic API.'), 'quota_gone'],
  [401, { type: 'authentication_error', message: 'invalid x-api-key' }, 'authentication'],
  [402, { type: 'billing_error', message: 'pay' }, 'quota_gone'],
  [403, { type: 'permission_error', message: 'no' }, 'authentication'],
  [404, { type: 'not_found_error', message: 'model: claude-9' }, 'model_not_found'],
  [413, { type: 'request_too_large', message: 'Request exceeds the maximum size' }, 'context_too_long'],
  [429, { type: 'rate_limit_error', message: 'slow' }, 'rate_limited'],
  [
    429,
    { type: 'rate_limit_error', message: 'no', details: { error_code: 'enforced_spend_limit_reached' } },
    'quota_gone',
  ],
  [500, { type: 'api_error', message: 'oh' }, 'overloaded'],
  [504, { type: 'timeout_error', message: 'late' }, 'timeout'],
  [529, { type: 'overloaded_error', message: 'Overloaded' }, 'overloaded'],
])('%d with %j is %s, from one request', async (status, error, outcome) => {
  expect(await refusedWith(status, error)).toMatchObject({ outcome, sent: true, httpStatus: status })
})

test('a refusal tells how long to wait, and its id', async () => {
  const headers = { 'retry-after': '11', 'request-id': 'req_1' }
  expect(await refusedWith(429, { type: 'rate_limit_error', message: 'slow' }, headers)).toMatchObject({
    outcome: 'rate_limited',
    retryAfterMs: 11_000,
    received: { providerRequestId: 'req_1' },
  })
})

const start = { type: 'message_start', message: { id: 'msg_1', usage: { input_tokens: 20, output_tokens: 1 } } }
const piece = { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'In 17' } }

test.each([
  [[], { type: 'overloaded_error', message: 'Overloaded' }, 'overloaded'],
  [[start], { type: 'overloaded_error', message: 'Overloaded' }, 'cut_stream'],
  [[start], { type: 'api_error', message: 'oh' }, 'cut_stream'],
  [[start, piece], { type: 'overloaded_error', message: 'Overloaded' }, 'cut_stream'],
])('after %j the error event %j is %s', async (events, error, outcome) => {
  const upstream = await useUpstream((response) => sendMessageEvents(response, [...events, { type: 'error', error }]))
  expect(await providerAt(upstream.url).chat(chatOf())).toMatchObject({ outcome, sent: true, httpStatus: null })
  expect(upstream.requests).toHaveLength(1)
})

test.each([
  ['nothing', '', 'malformed_answer'],
  ['pings only', `event: ping\ndata: {"type":"ping"}\n\n`, 'malformed_answer'],
  ['a web page', '<html></html>', 'malformed_answer'],
  ['half an event', `event: message_start\ndata: {"type":\n\n`, 'malformed_answer'],
  ['events of another API', `event: x\ndata: {"choices":[]}\n\n`, 'malformed_answer'],
  ['no object', `event: message_start\ndata: null\n\n`, 'malformed_answer'],
  ['a start only', `event: message_start\n${dataOf(start)}`, 'cut_stream'],
])('a stream of %s is %s', async (_case, text, outcome) => {
  const upstream = await useUpstream((response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).end(text)
  })
  expect(await providerAt(upstream.url).chat(chatOf())).toMatchObject({ outcome, sent: true })
  expect(upstream.requests).toHaveLength(1)
})

test('a connection that dies is told apart by what was written', async () => {
  const nobody = `http://127.0.0.1:${await findFreePort()}`
  expect(await providerAt(nobody).chat(chatOf())).toMatchObject({ outcome: 'network_before_send', sent: false })
  const dying = await listen(createTcpServer((socket) => socket.once('data', () => socket.destroy())))
  expect(await providerAt(dying).chat(chatOf())).toMatchObject({ outcome: 'network_after_send', sent: true })
  const cutting = await useUpstream((response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write(`event: message_start\n${dataOf(start)}`, () => response.destroy())
  })
  expect(await providerAt(cutting.url).chat(chatOf())).toMatchObject({ outcome: 'cut_stream', sent: true })
  expect(cutting.requests).toHaveLength(1)
})

test('a silence ends in time, and an abort at once', async () => {
  let isClosed = false
  const upstream = await useUpstream((response) => {
    response.on('close', () => (isClosed = true))
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(`event: ping\n${dataOf({ type: 'ping' })}`)
  })
  const provider = providerAt(upstream.url)
  expect(await provider.chat(chatOf({ firstByteTimeoutMs: 100 }))).toMatchObject({ outcome: 'timeout' })
  isClosed = false
  const aborting = new AbortController()
  const pending = provider.chat(chatOf({ signal: aborting.signal }))
  await pollUntil(() => upstream.requests.length === 2, { what: 'the request', intervalMs: 5 })
  aborting.abort()
  expect(await pending).toMatchObject({ outcome: 'aborted', sent: true })
  await pollUntil(() => isClosed, { what: 'the closed connection', deadlineMs: 500, intervalMs: 5 })
  expect(await provider.chat(chatOf({ signal: AbortSignal.abort() }))).toMatchObject({
    outcome: 'aborted',
    sent: false,
  })
  expect(upstream.requests).toHaveLength(2)
})
