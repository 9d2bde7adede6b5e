import { createProvider } from '#providers/create-provider.ts'
import type { Usage } from '#domain/pricing.ts'
import { NO_USAGE } from '#domain/pricing.ts'
import type { ProviderChatRequest } from '#providers/provider.ts'
import { expect, test } from 'vitest'
import { chatOf, chunkOf, DONE, sendEvents, useUpstream } from '../support/upstream.ts'

async function usageOf(events: readonly unknown[], change: Partial<ProviderChatRequest> = {}): Promise<Usage | null> {
  const upstream = await useUpstream((response) => sendEvents(response, events))
  const settings = { name: 'p', kind: 'openai', baseUrl: upstream.url, apiKey: 'k' } as const
  const result = await createProvider(settings, { nowMs: () => 0 }).chat(chatOf(change))
  expect(result.outcome).toBe('answered')
  return result.received.usage
}

/** A report after the end, as `stream_options.include_usage` has it. */
function reported(usage: unknown): readonly unknown[] {
  return [chunkOf({ content: 'In 1711.' }), chunkOf({}, 'stop'), { ...chunkOf({}), choices: [], usage }, DONE]
}

const plain = { prompt_tokens: 100, completion_tokens: 20, total_tokens: 120 }

test.each<[string, object, Partial<Usage>]>([
  [
    'OpenAI',
    {
      ...plain,
      prompt_tokens_details: { cached_tokens: 64, audio_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: 12 },
    },
    { cachedInput: 64, reasoning: 12 },
  ],
  ['DeepSeek', { ...plain, prompt_cache_hit_tokens: 64, prompt_cache_miss_tokens: 36 }, { cachedInput: 64 }],
  ['Moonshot', { ...plain, cached_tokens: 64 }, { cachedInput: 64 }],
  [
    'OpenRouter',
    {
      ...plain,
      cost: 0.0001,
      prompt_tokens_details: { cached_tokens: 10, cache_write_tokens: 50 },
      server_tool_use: { web_search_requests: 2 },
    },
    { cachedInput: 10, cacheWrite: 50, toolUses: { web_search: 2 } },
  ],
  [
    'LiteLLM',
    { ...plain, prompt_tokens_details: { cached_tokens: 10, cache_creation_tokens: 50 } },
    { cachedInput: 10, cacheWrite: 50 },
  ],
  [
    'Perplexity',
    { ...plain, reasoning_tokens: 5, num_search_queries: 3 },
    { reasoning: 5, toolUses: { web_search: 3 } },
  ],
  [
    'xAI, whose reasoning stands beside the completion',
    {
      prompt_tokens: 100,
      completion_tokens: 20,
      total_tokens: 214,
      completion_tokens_details: { reasoning_tokens: 94 },
    },
    { output: 114, reasoning: 94 },
  ],
  [
    'xAI with little reasoning',
    {
      prompt_tokens: 100,
      completion_tokens: 20,
      total_tokens: 125,
      completion_tokens_details: { reasoning_tokens: 5 },
    },
    { output: 25, reasoning: 5 },
  ],
  [
    'Gemini, whose thoughts are in the total only',
    { prompt_tokens: 100, completion_tokens: 20, total_tokens: 300 },
    { output: 200 },
  ],
  [
    'one that has no total',
    { prompt_tokens: 100, completion_tokens: 20, completion_tokens_details: { reasoning_tokens: 21 } },
    { output: 41, reasoning: 21 },
  ],
  [
    'one with nulls',
    { ...plain, prompt_tokens_details: null, completion_tokens_details: { reasoning_tokens: null } },
    {},
  ],
])('usage in the dialect of %s', async (_case, usage, expected) => {
  expect(await usageOf(reported(usage))).toEqual({ ...NO_USAGE, input: 100, output: 20, ...expected })
})

test.each([
  ['negative', { ...plain, completion_tokens: -1 }],
  ['a string', { ...plain, prompt_tokens: '100' }],
  ['a fraction', { ...plain, prompt_tokens: 99.5 }],
  ['beyond any context', { prompt_tokens: 100_000_001, completion_tokens: 1 }],
  ['beyond what numbers tell apart', { prompt_tokens: 1e21, completion_tokens: 1 }],
  ['more cached than there is', { ...plain, prompt_tokens_details: { cached_tokens: 101 } }],
  [
    'more cached and written than there is',
    { ...plain, prompt_tokens_details: { cached_tokens: 60, cache_write_tokens: 60 } },
  ],
  ['cached as a string', { ...plain, prompt_tokens_details: { cached_tokens: '64' } }],
  ['no prompt', { ...plain, prompt_tokens: 0 }],
  ['no output for a text', { ...plain, completion_tokens: 0, total_tokens: 100 }],
  ['no completion', { prompt_tokens: 100 }],
  ['an absurd total', { ...plain, total_tokens: 1_000_000_000 }],
  ['a text', 'plenty'],
  ['a list', [plain]],
  ['empty', {}],
])('a report that is %s is no report', async (_case, usage) => {
  expect(await usageOf(reported(usage))).toBeNull()
})

test('one token for a long answer, or for a long prompt, is a constant and no report', async () => {
  const one = { prompt_tokens: 100, completion_tokens: 1 }
  const long = 'a word and another '.repeat(100)
  expect(await usageOf([chunkOf({ content: long }, 'stop', { usage: one })])).toBeNull()
  expect(await usageOf([chunkOf({ reasoning: long }), chunkOf({ content: '1711' }, 'stop', { usage: one })])).toBeNull()
  const body: ProviderChatRequest['body'] = { messages: [{ role: 'user', content: [{ type: 'text', text: long }] }] }
  expect(await usageOf(reported({ prompt_tokens: 1, completion_tokens: 4 }), { body })).toBeNull()
})

test('an answer without a text may have used no output', async () => {
  const usage = { prompt_tokens: 100, completion_tokens: 0 }
  expect(await usageOf([chunkOf({}, 'stop', { usage })])).toMatchObject({ input: 100, output: 0 })
})

test('a count that came before the end is not the bill', async () => {
  const running = chunkOf({ content: 'In 1711.' }, null, { usage: { prompt_tokens: 100, completion_tokens: 1 } })
  expect(await usageOf([running, chunkOf({}, 'stop'), DONE])).toBeNull()
  expect(await usageOf([running, chunkOf({}, 'stop', { usage: plain }), DONE])).toMatchObject({ output: 20 })
})

test('the last report counts, and when it is none, there is none', async () => {
  const end = chunkOf({}, 'stop', { usage: { prompt_tokens: 100, completion_tokens: 5 } })
  const more = (usage: unknown) => ({ ...chunkOf({}), choices: [], usage })
  expect(await usageOf([chunkOf({ content: 'x' }), end, more(plain)])).toMatchObject({ output: 20 })
  expect(await usageOf([chunkOf({ content: 'x' }), end, more({ prompt_tokens: -1 })])).toBeNull()
  expect(await usageOf([chunkOf({ content: 'x' }), end, more(null)])).toMatchObject({ output: 5 })
})

test('the images of a prompt are counted by us', async () => {
  const image = { type: 'image', url: 'data:image/png;base64,aGk=' } as const
  const body: ProviderChatRequest['body'] = {
    messages: [
      { role: 'user', content: [image, { type: 'text', text: 'What?' }, image] },
      { role: 'user', content: [image] },
    ],
  }
  expect(await usageOf(reported(plain), { body })).toMatchObject({ input: 100, images: 3 })
})
