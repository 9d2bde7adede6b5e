import { pricesOf } from '#contracts/price.ts'
import type { CatalogPrice } from '#contracts/catalog.ts'
import { componentsOf } from '#domain/price-list.ts'
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { readPriceFile, type PriceFileOptions } from '../../src/cli/price-file.ts'

const fixture = (name: string) => readFileSync(new URL(`../fixtures/prices/${name}`, import.meta.url), 'utf8')
const LITELLM = fixture('litellm.json')
const MODELS_DEV = fixture('models-dev.json')
const ALL: PriceFileOptions = { providers: new Map(), only: new Set(), free: 'take', effectiveAt: undefined }

/** A number's digits with its point moved `places` to the right, and one more if anything is left behind it: by hand. */
function shifted(source: string, places: number): string {
  const [mantissa = '', exponent = '0'] = source.toLowerCase().split('e')
  const [whole = '', fraction = ''] = mantissa.split('.')
  const point = whole.length + Number(exponent) + places
  const digits = (point < 0 ? '0'.repeat(-point) : '') + whole + fraction
  const kept = digits.slice(0, Math.max(0, point)).padEnd(Math.max(0, point), '0')
  const rest = digits.slice(Math.max(0, point))
  return (BigInt(kept || '0') + (/[1-9]/.test(rest) ? 1n : 0n)).toString()
}

const nanoOf = (price: CatalogPrice, component: string) => componentsOf(pricesOf(price)).get(component)?.toString()

/** Each entry of LiteLLM's map as the text it is: none is parsed. */
const entries = LITELLM.split('\n').flatMap((line) => {
  const [, key = '', whole = ''] = /^ {2}"([^"]+)": (\{.*\}),?$/.exec(line) ?? []
  // A discount by the hour is not promised to anybody.
  const body = whole.replace(/"off_peak_pricing": \{.*?\}\]\}/, '')
  const source = (name: string) => new RegExp(String.raw`"${name}": ([\d.eE+-]+)[,}]`).exec(body)?.[1]
  const word = (name: string) => new RegExp(`"${name}": "([^"]+)"`).exec(body)?.[1] ?? ''
  return key === '' || key === 'sample_spec'
    ? []
    : [{ key, body, source, mode: word('mode'), provider: word('litellm_provider') }]
})
const MODES = ['chat', 'completion', 'responses', 'embedding']
const tokenPriced = entries.filter(
  ({ mode, source, body }) =>
    MODES.includes(mode) && (source('input_cost_per_token') !== undefined || body.includes('"tiered_pricing"')),
)

test('every priced token model of LiteLLM’s map is read, with no digit lost and none made up', () => {
  const { prices, skipped } = readPriceFile(LITELLM, ALL)
  expect(tokenPriced.length).toBeGreaterThan(150)
  const names = {
    input: 'input_cost_per_token',
    cachedInput: 'cache_read_input_token_cost',
    cacheWrite: 'cache_creation_input_token_cost',
    output: 'output_cost_per_token',
    reasoning: 'output_cost_per_reasoning_token',
  } as const
  let compared = 0
  let tiers = 0
  for (const { key, source, provider, body } of tokenPriced) {
    const upstreamModel = key.startsWith(`${provider}/`) ? key.slice(provider.length + 1) : key
    const price = prices.find((each) => each.provider === provider && each.upstreamModel === upstreamModel)
    expect(`${key}: ${price ? 'read' : skipped.find(({ name }) => name.includes(upstreamModel))?.reason}`).toBe(
      `${key}: read`,
    )
    const isSecond = skipped.some(
      ({ name, reason }) => name === `${provider} ${upstreamModel}` && reason.includes('twice'),
    )
    if (!price || isSecond || body.includes('"tiered_pricing"')) continue
    for (const [component, name] of Object.entries(names)) {
      const text = source(name)
      if (text === undefined) continue
      expect(`${key} ${component} ${nanoOf(price, component)}`).toBe(`${key} ${component} ${shifted(text, 15)}`)
      compared += 1
      for (const [, size = '', above = ''] of body.matchAll(
        new RegExp(String.raw`"${name}_above_(\d+)k_tokens": ([\d.eE+-]+)`, 'g'),
      )) {
        expect(nanoOf(price, `${component} above ${size}000`)).toBe(shifted(above, 15))
        tiers += 1
      }
    }
  }
  expect(compared).toBeGreaterThan(400)
  expect(tiers).toBeGreaterThan(20)
})

test('ranges of a prompt’s length, fees for searches and requests, and images are priced as the list has them', () => {
  const priceOf = (entry: { readonly key: string; readonly provider: string } | undefined) => {
    const { key = '', provider = '' } = entry ?? {}
    const only = new Set([key.replace(`${provider}/`, '')])
    return readPriceFile(LITELLM, { ...ALL, providers: new Map([[provider, provider]]), only }).prices[0]
  }
  const ranged = entries.find(({ body }) => body.includes('"tiered_pricing"'))
  const starts = [...(ranged?.body ?? '').matchAll(/"range": \[([\d.e]+),/g)].map(([, start]) => Number(start))
  expect(priceOf(ranged)?.tiers?.map(({ aboveInputTokens }) => aboveInputTokens)).toEqual(starts.slice(1))
  const searching = entries.filter(({ mode, source }) => MODES.includes(mode) && source('search_context_size_high'))
  expect(searching.length).toBeGreaterThan(3)
  for (const entry of searching) {
    const { source } = entry
    const sizes = ['low', 'medium', 'high'].map((size) => Number(source(`search_context_size_${size}`) ?? 0))
    const fee = priceOf(entry)?.toolFees?.['web_search']
    expect(Number(fee ?? 0)).toBe(Math.max(...sizes))
  }
  const asked = entries.find(({ source }) => source('input_cost_per_request') === '0.005')
  expect(priceOf(asked)?.perCall).toBe('0.005000')
})

test('what is no token model is skipped, each with its reason', () => {
  const { skipped } = readPriceFile(LITELLM, ALL)
  const others = entries.filter((entry) => !tokenPriced.includes(entry))
  expect(skipped.length).toBe(others.length)
  expect(new Set(skipped.map(({ reason }) => reason))).toContain('is of the mode image_generation')
})

test('every priced model of models.dev is read, with its tiers', () => {
  const { prices } = readPriceFile(MODELS_DEV, ALL)
  const costs = [...MODELS_DEV.matchAll(/"cost": \{[^{}]*"input": ([\d.e-]+)/g)]
  expect(prices.length).toBeGreaterThan(40)
  const inputs = new Set(prices.map((price) => nanoOf(price, 'input')))
  for (const [, source = ''] of costs) expect(inputs).toContain(shifted(source, 9))
  const tiered = prices.filter(({ tiers }) => tiers)
  expect(tiered.length).toBeGreaterThan(3)
  for (const { tiers } of tiered) expect(tiers?.every(({ aboveInputTokens }) => aboveInputTokens >= 1_000)).toBe(true)
})

test('names are ours where that is said, only what is named is taken, and what costs nothing has to be asked for', () => {
  const text =
    '{"deep/a": {"litellm_provider": "deep", "mode": "chat", "input_cost_per_token": 2e-06}, "other/a": {"litellm_provider": "other", "mode": "chat", "input_cost_per_token": 1e-6}, "deep/b": {"litellm_provider": "deep", "mode": "chat", "input_cost_per_token": 0.0}}'
  const options = { ...ALL, providers: new Map([['deep', 'ours']]), free: 'skip' } as const
  expect(readPriceFile(text, { ...options, effectiveAt: '2027-01-01T00:00:00Z' })).toEqual({
    prices: [
      {
        provider: 'ours',
        upstreamModel: 'a',
        currency: 'USD',
        input: '2.000000',
        output: '0.000000',
        effectiveAt: '2027-01-01T00:00:00Z',
      },
    ],
    skipped: [{ name: 'deep b', reason: 'costs nothing by this list: --free takes it' }],
  })
  expect(readPriceFile(text, { ...options, only: new Set(['nothing']) }).prices).toEqual([])
})

test('a file that is no price list, and a price that is none, say so', () => {
  expect(() => readPriceFile('{"a": {}}', ALL)).toThrow('neither LiteLLM’s')
  expect(() => readPriceFile('[]', ALL)).toThrow('neither LiteLLM’s')
  expect(() => readPriceFile('{', ALL)).toThrow('The file is no JSON')
  const read = (price: string) =>
    readPriceFile(`{"a": {"litellm_provider": "p", "mode": "chat", "input_cost_per_token": ${price}}}`, ALL).skipped[0]
      ?.reason
  expect(read('-1e-6')).toBe('input_cost_per_token is no price')
  expect(read('"1e-6"')).toBe('input_cost_per_token is no price')
  expect(read('1e300')).toBe('input_cost_per_token is no price')
  expect(read('2')).toBe('input_cost_per_token is more than 1000000')
  expect(read('{"a": 1}')).toBe('input_cost_per_token is no price')
})
