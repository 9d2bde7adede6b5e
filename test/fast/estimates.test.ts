import { settlementOf } from '#calls/charge.ts'
import { promptBounds } from '#calls/prompt-size.ts'
import { createTokenCounter } from '#calls/token-counter.ts'
import type { ChatBody } from '#contracts/chat.ts'
import type { Plan } from '#contracts/stored.ts'
import { NO_USAGE, plainPrices } from '#domain/pricing.ts'
import { NOTHING_RECEIVED, type ProviderResult, type Received } from '#providers/provider.ts'
import { expect, onTestFinished, test } from 'vitest'

/** A token costs a thousand nano: 50 of input and 10 of output are held. */
const PLAN: Plan = {
  route: 'r',
  provider: 'p',
  upstreamModel: 'm',
  balanceClass: 'direct',
  currency: 'USD',
  priceId: '00000000-0000-0000-0000-000000000000',
  prices: plainPrices({ inputNanoPerMillion: 10n ** 9n, outputNanoPerMillion: 10n ** 9n }),
  inputTokenBound: 50,
  maxOutputTokens: 10,
  timeoutMs: 1,
  why: 'first',
  after: null,
  skipped: [],
}

type Failed = Exclude<ProviderResult, { outcome: 'answered' }>

function chargeOf(
  outcome: Failed['outcome'],
  received: Partial<Received>,
  { isTakenOn, ...plan }: Partial<Plan> & Pick<Failed, 'isTakenOn'> = {},
) {
  const key = { runId: null, callId: '00000000-0000-0000-0000-000000000001', number: 1 }
  const failed = { outcome, isTakenOn, sent: true, detail: '', httpStatus: null, retryAfterMs: null }
  const result = { ...failed, received: { ...NOTHING_RECEIVED, ...received } }
  const { amount, certainty } = settlementOf(key, result, { plan: { ...PLAN, ...plan }, held: 60_000n })
  return [amount, certainty]
}

test('of a stream that broke off what was seen of it is charged', () => {
  expect(chargeOf('aborted', { text: 'four' })).toEqual([54_000n, 'estimated'])
  expect(chargeOf('cut_stream', {})).toEqual([50_000n, 'estimated'])
})

test('of a tool call that broke off more is charged than what shows of it', () => {
  const toolCalls = [{ id: '1', name: 'f', arguments: '{}' }]
  const [amount] = chargeOf('cut_stream', { toolCalls })
  expect(amount).toBe(60_000n)
})

test('of an answer that was to come in one piece all its output is charged: it may be finished, and nothing was seen', () => {
  expect(chargeOf('aborted', {}, { streaming: false })).toEqual([60_000n, 'estimated'])
  expect(chargeOf('cut_stream', {}, { streaming: false })).toEqual([60_000n, 'estimated'])
})

test('an answer that its provider has ended is charged though nothing can be made of it, and garbage is not', () => {
  expect(chargeOf('malformed_answer', { finishReason: 'stop' })).toEqual([50_000n, 'estimated'])
  expect(chargeOf('content_filter', { finishReason: 'content_filter' })).toEqual([50_000n, 'estimated'])
  expect(chargeOf('malformed_answer', {})).toEqual([null, null])
})

test('an answer that began is charged though it turned into garbage, all its output; of one that was filtered what was seen', () => {
  expect(chargeOf('malformed_answer', {}, { isTakenOn: true })).toEqual([60_000n, 'estimated'])
  expect(chargeOf('malformed_answer', { text: 'four' }, { isTakenOn: true })).toEqual([60_000n, 'estimated'])
  expect(chargeOf('content_filter', {}, { isTakenOn: true })).toEqual([50_000n, 'estimated'])
})

test('a prompt with tools is bounded by more than their text: a provider explains to its model how they are used', async () => {
  const counter = createTokenCounter()
  onTestFinished(() => counter.stop())
  const route = { imageTokens: 0, contextTokens: 100_000 }
  const body = { messages: [{ role: 'user', content: 'hi' }], maxTokens: 1 } as const
  const tools = [{ name: 'f', parameters: {} }]
  const [plain, tooled] = [
    await promptBounds(counter, body)(route),
    await promptBounds(counter, { ...body, tools })(route),
  ]
  // 530 tokens are the most that Anthropic names, for Claude 3 Opus.
  expect(tooled.tokens - plain.tokens).toBeGreaterThanOrEqual(530 + JSON.stringify(tools).length)
})

test('texts to be embedded have a context each, and are bounded by all of them together', async () => {
  const counter = createTokenCounter()
  onTestFinished(() => counter.stop())
  const input = Array.from({ length: 100 }, (_, index) => `passage ${index} `.repeat(40))
  for (const tokenizer of [undefined, 'cl100k_base'] as const) {
    const route = { tokenizer, imageTokens: 0, contextTokens: 8_192 }
    const bound = await promptBounds(counter, { input })(route)
    expect(bound.tokens).toBeGreaterThan(8_192)
    const long = input.join('')
    expect(await promptBounds(counter, { input: [long] })(route)).toMatchObject({ tokens: 8_192, by: 'context' })
  }
})

test('of several answers that broke off what was seen of each is charged, up to all that was held for them', () => {
  const others = [{ text: 'four', toolCalls: [], finishReason: null, stopSequence: null }]
  expect(chargeOf('cut_stream', { text: 'four', finishReason: 'stop', others }, { choices: 2 })).toEqual([
    58_000n,
    'estimated',
  ])
  const hidden = { choices: 2, streaming: false }
  expect(chargeOf('cut_stream', { text: 'four', finishReason: 'stop', others }, hidden)).toEqual([60_000n, 'estimated'])
})

test('a running count is no bill while one of the answers goes on', () => {
  const usage = { ...NO_USAGE, input: 50, output: 1 }
  const others = [{ text: 'four', toolCalls: [], finishReason: null, stopSequence: null }]
  const [amount, certainty] = chargeOf(
    'cut_stream',
    { text: 'four', finishReason: 'stop', others, usage },
    { choices: 2 },
  )
  expect([amount, certainty]).toEqual([58_000n, 'estimated'])
})

test('further members of a request are bounded by their bytes: they may become part of the prompt', async () => {
  const counter = createTokenCounter()
  onTestFinished(() => counter.stop())
  const body = { messages: [{ role: 'user', content: 'hi' }], maxTokens: 1 } as const
  const parameters = { documents: ['The mill was built in 1711. '.repeat(40)] }
  for (const tokenizer of [undefined, 'o200k_base'] as const) {
    const bounds = async (asked: ChatBody) =>
      (await promptBounds(counter, asked)({ tokenizer, imageTokens: 0, contextTokens: 100_000 })).tokens
    const more = (await bounds({ ...body, parameters })) - (await bounds(body))
    expect(more).toBe(JSON.stringify(parameters).length)
  }
})
