import { createProvider } from '#providers/create-provider.ts'
import type { ProviderEmbedRequest, ProviderResult } from '#providers/provider.ts'
import { expect, test } from 'vitest'
import { sendJson, useUpstream, type SeenRequest } from '../support/upstream.ts'

interface Asked {
  readonly result: ProviderResult
  readonly request: SeenRequest | undefined
}

async function embed(body: unknown, asked: Partial<ProviderEmbedRequest['body']> = {}, status = 200): Promise<Asked> {
  const upstream = await useUpstream((response) => sendJson(response, body, status))
  const settings = { name: 'p', kind: 'openai', baseUrl: upstream.url, apiKey: 'k' } as const
  const provider = createProvider(settings, { nowMs: () => 0 })
  const result = await provider.embed?.({
    upstreamModel: 'e',
    body: { input: ['mill', 'river'], ...asked },
    clientRequestId: 'call:1',
    timeoutMs: 5_000,
    signal: new AbortController().signal,
  })
  expect(upstream.requests).toHaveLength(1)
  if (!result) throw new Error('it does not embed')
  return { result, request: upstream.requests[0] }
}

function base64Of(...numbers: readonly number[]): string {
  return Buffer.from(Float32Array.from(numbers).buffer).toString('base64')
}

const usage = { prompt_tokens: 4, total_tokens: 4 }
const item = (index: number, embedding: unknown) => ({ object: 'embedding', index, embedding })

test('texts are sent in one request, and their vectors come in order, whatever their encoding', async () => {
  const { result, request } = await embed(
    { object: 'list', data: [item(1, [0.25, -2]), item(0, base64Of(0.5, 1))], model: 'e', usage },
    { dimensions: 2, user: 'somebody' },
  )
  expect(request).toMatchObject({
    method: 'POST',
    path: '/v1/embeddings',
    headers: { 'x-client-request-id': 'call:1' },
  })
  expect(request?.body).toEqual({
    model: 'e',
    input: ['mill', 'river'],
    encoding_format: 'base64',
    dimensions: 2,
    user: 'somebody',
  })
  expect(result).toMatchObject({
    outcome: 'answered',
    received: {
      vectors: [
        [0.5, 1],
        [0.25, -2],
      ],
      usage: { input: 4, output: 0 },
      finishReason: 'stop',
    },
  })
})

test('vectors without an index stand as they came', async () => {
  const { result } = await embed({ data: [{ embedding: [1] }, { embedding: [2] }], usage })
  expect(result.received.vectors).toEqual([[1], [2]])
})

test.each([
  ['too few', [item(0, [1])]],
  ['too many', [item(0, [1]), item(1, [1]), item(2, [1])]],
  ['empty', [item(0, []), item(1, [])]],
  ['of two lengths', [item(0, [1]), item(1, [1, 2])]],
  ['not numbers', [item(0, ['1']), item(1, [2])]],
  ['not finite', [item(0, base64Of(Number.NaN)), item(1, [2])]],
  ['half a number', [item(0, 'AAA='), item(1, [2])]],
  ['nothing', [null, null]],
])('vectors that are %s are no answer, and billed as reported', async (_case, data) => {
  const { result } = await embed({ data, usage })
  expect(result).toMatchObject({
    outcome: 'malformed_answer',
    received: { vectors: [], usage: { input: 4 }, finishReason: 'stop' },
  })
})

test('vectors of other dimensions than asked for are no answer', async () => {
  const { result } = await embed({ data: [item(0, [1]), item(1, [2])], usage }, { dimensions: 2 })
  expect(result.outcome).toBe('malformed_answer')
})

test.each([
  [{ data: [item(0, [1]), item(1, [2])] }, 'answered'],
  [{ data: [item(0, [1]), item(1, [2])], usage: { prompt_tokens: 0 } }, 'answered'],
  [{ what: 'else' }, 'malformed_answer'],
  [{ error: { code: 429, message: 'slow' } }, 'rate_limited'],
])('of %j, which is %s, no usage is believed', async (body, outcome) => {
  const { result } = await embed(body)
  expect(result).toMatchObject({ outcome, received: { usage: null } })
})

test('a refused embedding has an outcome like any other', async () => {
  const { result } = await embed({ error: { code: 'insufficient_quota', message: 'no' } }, {}, 429)
  expect(result).toMatchObject({ outcome: 'quota_gone', httpStatus: 429 })
})

test('garbage in place of JSON is a malformed answer', async () => {
  const upstream = await useUpstream((response) => void response.end('<html>'))
  const settings = { name: 'p', kind: 'openai', baseUrl: upstream.url, apiKey: 'k' } as const
  const result = await createProvider(settings, { nowMs: () => 0 }).embed?.({
    upstreamModel: 'e',
    body: { input: ['mill'] },
    clientRequestId: 'call:1',
    timeoutMs: 5_000,
    signal: new AbortController().signal,
  })
  expect(result).toMatchObject({ outcome: 'malformed_answer', sent: true })
})
