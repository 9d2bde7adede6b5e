import { isRecord } from './json.ts'

/** Prices of tokens, in nano of the currency (1 USD = 1,000,000,000) per 1,000,000 tokens. */
interface TokenPrices {
  readonly inputNano: bigint
  readonly cachedInputNano: bigint
  readonly cacheWriteNano: bigint
  readonly outputNano: bigint
  readonly reasoningNano: bigint
}

export interface Prices extends TokenPrices {
  readonly perCallNano: bigint
  readonly perImageNano: bigint
  /** For each use of a tool of the provider's own, by its name. */
  readonly toolFeesNano: ReadonlyMap<string, bigint>
  /** By rising threshold: prices of all tokens of a prompt that is longer. */
  readonly tiers: readonly (TokenPrices & { readonly aboveInputTokens: number })[]
}

/** The cached and the written part are in the prompt, reasoning is in the completion. */
export interface BilledUsage {
  readonly promptTokens: number
  readonly completionTokens: number
  readonly cachedTokens: number
  readonly cacheWriteTokens: number
  readonly reasoningTokens: number
  readonly images: number
  readonly toolUses: Readonly<Record<string, number>>
}

export const NO_USAGE: BilledUsage = {
  promptTokens: 0,
  completionTokens: 0,
  cachedTokens: 0,
  cacheWriteTokens: 0,
  reasoningTokens: 0,
  images: 0,
  toolUses: {},
}

const NANO_DIGITS = 9
const NANO_PER_UNIT = 10n ** BigInt(NANO_DIGITS)
const TOKENS_PER_PRICE = 1_000_000n
const DECIMAL = /^(\d{1,9})(?:\.(\d{1,9}))?$/u

/** Reads `"0.15"` as 150,000,000 nano; null when the text is no plain decimal with at most nine places. */
export function parseAmount(text: unknown): bigint | null {
  const match = typeof text === 'string' ? DECIMAL.exec(text) : null
  if (match === null) return null
  return BigInt(match[1] ?? '0') * NANO_PER_UNIT + BigInt((match[2] ?? '').padEnd(NANO_DIGITS, '0'))
}

/** Always nine decimals: 2,350 nano is `"0.000002350"`. */
export function formatAmount(nano: bigint): string {
  const digits = nano.toString().padStart(NANO_DIGITS + 1, '0')
  return `${digits.slice(0, -NANO_DIGITS)}.${digits.slice(-NANO_DIGITS)}`
}

/**
 * What a request costs, in nano: one rounding, up, over the sum of all tokens, and the fees.
 *
 * @example 7 tokens in at 0.15 and 3 out at 0.60: (7 × 150,000,000 + 3 × 600,000,000) ÷ 1,000,000 = 2,850 nano.
 */
export function charge(usage: BilledUsage, prices: Prices): bigint {
  let at: TokenPrices = prices
  for (const tier of prices.tiers) if (usage.promptTokens > tier.aboveInputTokens) at = tier
  const exact =
    BigInt(usage.promptTokens - usage.cachedTokens - usage.cacheWriteTokens) * at.inputNano +
    BigInt(usage.cachedTokens) * at.cachedInputNano +
    BigInt(usage.cacheWriteTokens) * at.cacheWriteNano +
    BigInt(usage.completionTokens - usage.reasoningTokens) * at.outputNano +
    BigInt(usage.reasoningTokens) * at.reasoningNano
  let fees = prices.perCallNano + BigInt(usage.images) * prices.perImageNano
  for (const [tool, uses] of Object.entries(usage.toolUses)) {
    fees += BigInt(uses) * (prices.toolFeesNano.get(tool) ?? 0n)
  }
  return (exact + TOKENS_PER_PRICE - 1n) / TOKENS_PER_PRICE + fees
}

const TOKEN_PRICES = ['input', 'cachedInput', 'cacheWrite', 'output', 'reasoning']
const FEES = ['perCall', 'perImage', 'toolFees', 'tiers']

/** Reads `{ "input": "0.15", "output": "0.60" }`, in the major unit per 1,000,000 tokens; the error names what is wrong. */
export function parsePrices(value: unknown): Prices {
  const prices = known(value, [...TOKEN_PRICES, ...FEES])
  const tiers = prices['tiers'] ?? []
  const toolFees = prices['toolFees'] ?? {}
  if (!Array.isArray(tiers) || !isRecord(toolFees)) throw new TypeError('"tiers" must be a list, "toolFees" an object')
  return {
    ...parseTokenPrices(prices),
    perCallNano: parsePrice(prices, 'perCall', 0n),
    perImageNano: parsePrice(prices, 'perImage', 0n),
    toolFeesNano: new Map(Object.keys(toolFees).map((tool) => [tool, parsePrice(toolFees, tool)])),
    tiers: tiers.map(parseTier).toSorted((left, right) => left.aboveInputTokens - right.aboveInputTokens),
  }
}

function parseTier(value: unknown): Prices['tiers'][number] {
  const tier = known(value, [...TOKEN_PRICES, 'aboveInputTokens'])
  const { aboveInputTokens } = tier
  if (typeof aboveInputTokens !== 'number') throw new TypeError('a tier needs "aboveInputTokens"')
  return { aboveInputTokens, ...parseTokenPrices(tier) }
}

function parseTokenPrices(prices: Readonly<Record<string, unknown>>): TokenPrices {
  const inputNano = parsePrice(prices, 'input')
  const outputNano = parsePrice(prices, 'output')
  return {
    inputNano,
    cachedInputNano: parsePrice(prices, 'cachedInput', inputNano),
    cacheWriteNano: parsePrice(prices, 'cacheWrite', inputNano),
    outputNano,
    reasoningNano: parsePrice(prices, 'reasoning', outputNano),
  }
}

function parsePrice(prices: Readonly<Record<string, unknown>>, name: string, otherwise?: bigint): bigint {
  if (prices[name] === undefined && otherwise !== undefined) return otherwise
  const nano = parseAmount(prices[name])
  if (nano === null) throw new TypeError(`the price "${name}" must be a decimal string, at most nine decimals`)
  return nano
}

function known(value: unknown, names: readonly string[]): Readonly<Record<string, unknown>> {
  if (!isRecord(value)) throw new TypeError('prices must be an object: { "input", "output" } as decimal strings')
  const unknown = Object.keys(value).find((name) => !names.includes(name))
  if (unknown !== undefined) throw new TypeError(`unknown price: ${unknown}; known: ${names.join(', ')}`)
  return value
}
