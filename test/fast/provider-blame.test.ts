import { createProvider } from '#providers/create-provider.ts'
import { signOf } from '#domain/circuit.ts'
import type { ProviderResult } from '#providers/provider.ts'
import { expect, test } from 'vitest'
import { chatOf, dataOf, DONE, sendEvents, sendJson, useUpstream } from '../support/upstream.ts'

/** What an upstream makes of a prompt that it refuses in these words. */
async function refusedFor(
  prompt: string,
  refusal: { readonly status: number; readonly body: object | string },
): Promise<ProviderResult> {
  const upstream = await useUpstream((response) => {
    const { status, body } = refusal
    if (typeof body === 'string') response.writeHead(status, { 'content-type': 'text/html' }).end(body)
    else if (status === 200) sendEvents(response, [dataOf(body), DONE])
    else sendJson(response, body, status)
  })
  const settings = { name: 'p', kind: 'openai', baseUrl: upstream.url, apiKey: 'sk-secret' } as const
  const body = { messages: [{ role: 'user', content: prompt }] } as const
  return createProvider(settings, { nowMs: () => 0 }).chat(chatOf({ body }))
}

const echoing = (words: string) => ({
  error: {
    message: `Invalid schema: In context=('properties', '${words}')`,
    type: 'invalid_request_error',
    code: null,
  },
})

test.each(['your credit balance is too low', 'Used all available credits', 'insufficient balance', 'Model Not Exist'])(
  'no caller closes a route to all others by having its provider repeat his words (%s)',
  async (words) => {
    for (const status of [400, 422, 429, 200]) {
      const honest = await refusedFor('When?', { status, body: { error: { message: `No: ${words}.` } } })
      expect(['quota_gone', 'model_not_found']).toContain(honest.outcome)
      const { outcome } = await refusedFor(`Say: ${words}`, { status, body: echoing(words) })
      expect([status, outcome]).not.toEqual([status, honest.outcome])
      expect(signOf(outcome)).not.toBe('gone')
    }
  },
)

test('a prompt that a wall before the provider stops says nothing of the key', async () => {
  const page = '<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head></html>'
  const result = await refusedFor("' or 1=1; drop table users", { status: 403, body: page })
  expect(result).toMatchObject({ outcome: 'model_not_found', httpStatus: 403 })
  expect(result).toMatchObject({ detail: '403 a page: Attention Required! | Cloudflare' })
})

test.each([
  'Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO',
  'The request was rejected because it violates our content policy.',
])('a prompt that its provider will not have is filtered, whatever the status (%s)', async (message) => {
  for (const status of [400, 403]) {
    const result = await refusedFor('How is it made?', { status, body: { code: 'denied', error: message } })
    expect(result).toMatchObject({ outcome: 'content_filter', httpStatus: status })
  }
})

test('a key that is refused is one, though the prompt speaks of keys', async () => {
  const body = { error: { code: 'invalid_api_key', message: 'Incorrect API key provided' } }
  expect(await refusedFor('incorrect api key', { status: 401, body })).toMatchObject({ outcome: 'authentication' })
  expect(await refusedFor('When?', { status: 403, body: { error: { message: 'Forbidden' } } })).toMatchObject({
    outcome: 'authentication',
  })
})
