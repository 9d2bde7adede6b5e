import { createProvider } from '#providers/create-provider.ts'
import { findFreePort } from '#local/free-port.ts'
import { expect, test } from 'vitest'
import { sendJson, useUpstream } from '../support/upstream.ts'

function openRouterAt(baseUrl: string) {
  return createProvider({ name: 'p', kind: 'openrouter', baseUrl, apiKey: 'k' }, { nowMs: () => 0 })
}

async function lookUp(status: number, body: unknown) {
  const upstream = await useUpstream((response) => sendJson(response, body, status))
  const found = await openRouterAt(upstream.url).lookUp?.('gen-1&x=/..', new AbortController().signal)
  expect(upstream.requests.map(({ method, path }) => `${method} ${path}`)).toEqual([
    'GET /v1/generation?id=gen-1%26x%3D%2F..',
  ])
  return found
}

/** As documented at openrouter.ai/docs/api/api-reference/generations/get-generation. */
const generation = {
  id: 'gen-1',
  total_cost: 0.0015,
  cancelled: true,
  streamed: true,
  finish_reason: null,
  native_tokens_prompt: 10,
  native_tokens_completion: 25,
  native_tokens_reasoning: 5,
  native_tokens_cached: 3,
  num_media_prompt: 1,
  tokens_prompt: 11,
  tokens_completion: 24,
}

test('a generation is found with the counts that are billed', async () => {
  expect(await lookUp(200, { data: generation })).toEqual({
    kind: 'found',
    usage: { input: 10, cachedInput: 3, cacheWrite: 0, output: 25, reasoning: 5, images: 1, toolUses: {} },
  })
})

test.each([
  [200, { data: { ...generation, native_tokens_completion: null } }, 'not_yet'],
  [404, { error: { code: 404, message: 'Generation gen-1 not found' } }, 'not_yet'],
  [429, { error: { code: 429, message: 'slow' } }, 'not_yet'],
  [500, { error: { code: 500, message: 'oh' } }, 'not_yet'],
  [400, { error: { code: 400, message: 'no' } }, 'unknown'],
  [401, { error: { code: 401, message: 'a key that is changed tomorrow' } }, 'not_yet'],
  [403, { error: { code: 403, message: 'a key that is changed tomorrow' } }, 'not_yet'],
  [400, { error: { code: 400, message: 'no' } }, 'unknown'],
  [200, { data: { ...generation, native_tokens_prompt: -1 } }, 'unknown'],
  [200, { data: { ...generation, native_tokens_prompt: 0, native_tokens_cached: 0 } }, 'unknown'],
  [200, { data: { ...generation, native_tokens_cached: 11 } }, 'unknown'],
  [200, {}, 'unknown'],
  [200, [], 'unknown'],
])('an answer of %d with %j tells %s', async (status, body, kind) => {
  expect(await lookUp(status, body)).toEqual({ kind })
})

test('a provider that cannot be reached, or is no more waited for, may still know', async () => {
  const nobody = openRouterAt(`http://127.0.0.1:${await findFreePort()}/v1`)
  expect(await nobody.lookUp?.('gen-1', new AbortController().signal)).toEqual({ kind: 'not_yet' })
  const silent = await useUpstream(() => undefined)
  expect(await openRouterAt(silent.url).lookUp?.('gen-1', AbortSignal.timeout(100))).toEqual({ kind: 'not_yet' })
})

test('only OpenRouter can be asked', () => {
  const settings = { name: 'p', baseUrl: 'http://127.0.0.1:1/v1', apiKey: 'k' }
  const clock = { nowMs: () => 0 }
  expect(createProvider({ ...settings, kind: 'openai' }, clock)).not.toHaveProperty('lookUp')
  expect(createProvider({ ...settings, kind: 'anthropic' }, clock)).not.toHaveProperty('lookUp')
  expect(createProvider({ ...settings, kind: 'anthropic' }, clock)).not.toHaveProperty('embed')
})
