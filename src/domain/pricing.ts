import { ceilDivide, type Nano } from './money.ts'

/** Prices of tokens, in integer nano per 1 000 000 tokens. */
export interface TokenPrices {
  readonly inputNanoPerMillion: bigint
  readonly cachedInputNanoPerMillion: bigint
  /** Input that the provider writes into its cache. */
  readonly cacheWriteNanoPerMillion: bigint
  readonly outputNanoPerMillion: bigint
  /** Hidden reasoning, which providers count as output. */
  readonly reasoningNanoPerMillion: bigint
}

/** Prices of a request whose prompt has more than so many tokens: of all its tokens, not only those above. */
export interface PriceTier extends TokenPrices {
  readonly aboveInputTokens: number
}

/** Prices of one upstream model. Immutable once recorded. */
export interface Prices extends TokenPrices {
  readonly perCallNano: bigint
  /** For each image in the prompt, where a provider bills images apart from tokens. */
  readonly perImageNano: bigint
  /** For each use of a tool of the provider's own, such as a web search, by its name. */
  readonly toolFeesNano: Readonly<Record<string, bigint>>
  /** By rising threshold. */
  readonly tiers: readonly PriceTier[]
}

/** What one attempt used. The cached and the written part are in `input`, and reasoning is in `output`. */
export interface Usage {
  readonly input: number
  readonly cachedInput: number
  readonly cacheWrite: number
  readonly output: number
  readonly reasoning: number
  readonly images: number
  readonly toolUses: Readonly<Record<string, number>>
}

export const NO_USAGE: Usage = Object.freeze({
  input: 0,
  cachedInput: 0,
  cacheWrite: 0,
  output: 0,
  reasoning: 0,
  images: 0,
  toolUses: Object.freeze({}),
})

const TOKENS_PER_PRICE = 1_000_000n

/** Prices in which everything costs what plain input and output cost. */
export function plainPrices(plain: {
  readonly inputNanoPerMillion: bigint
  readonly outputNanoPerMillion: bigint
  readonly cachedInputNanoPerMillion?: bigint
  readonly perCallNano?: bigint
}): Prices {
  const { inputNanoPerMillion, outputNanoPerMillion } = plain
  return {
    inputNanoPerMillion,
    cachedInputNanoPerMillion: plain.cachedInputNanoPerMillion ?? inputNanoPerMillion,
    cacheWriteNanoPerMillion: inputNanoPerMillion,
    outputNanoPerMillion,
    reasoningNanoPerMillion: outputNanoPerMillion,
    perCallNano: plain.perCallNano ?? 0n,
    perImageNano: 0n,
    toolFeesNano: {},
    tiers: [],
  }
}

/**
 * What an attempt costs: one ceil over the sum of its components.
 *
 * @example 1000 input tokens at 0.40 USD and 200 output tokens at 1.60 USD per million: 720 000 nano.
 */
export function chargeOf(prices: Prices, usage: Usage): Nano {
  const tier = prices.tiers.findLast(({ aboveInputTokens }) => usage.input > aboveInputTokens) ?? prices
  const fresh = BigInt(usage.input - usage.cachedInput - usage.cacheWrite)
  const tokens =
    fresh * tier.inputNanoPerMillion +
    BigInt(usage.cachedInput) * tier.cachedInputNanoPerMillion +
    BigInt(usage.cacheWrite) * tier.cacheWriteNanoPerMillion +
    BigInt(usage.output - usage.reasoning) * tier.outputNanoPerMillion +
    BigInt(usage.reasoning) * tier.reasoningNanoPerMillion
  return ceilDivide(tokens, TOKENS_PER_PRICE) + prices.perCallNano + feesOf(prices, usage)
}

/** The most of everything that an attempt may use. */
export interface UsageBound {
  readonly inputTokens: number
  readonly maxOutputTokens: number
  readonly images?: number
  readonly toolUses?: Readonly<Record<string, number>>
}

/** The most an attempt may cost: all input and all output at the dearest of its kinds and tiers. Rounds up. */
export function worstCaseOf(prices: Prices, bound: UsageBound): Nano {
  const { input, output } = highestOf(prices, bound.inputTokens)
  const tokens = BigInt(bound.inputTokens) * input + BigInt(bound.maxOutputTokens) * output
  const fees = feesOf(prices, { images: bound.images ?? 0, toolUses: bound.toolUses ?? {} })
  return ceilDivide(tokens, TOKENS_PER_PRICE) + prices.perCallNano + fees
}

/** The dearest of the kinds and tiers that a prompt of so many tokens can reach, in nano per 1 000 000 tokens. */
export function highestOf(prices: Prices, inputTokens: number): { readonly input: bigint; readonly output: bigint } {
  const reachable = [prices, ...prices.tiers.filter(({ aboveInputTokens }) => inputTokens > aboveInputTokens)]
  const input = highest(
    reachable.flatMap((tier) => [
      tier.inputNanoPerMillion,
      tier.cachedInputNanoPerMillion,
      tier.cacheWriteNanoPerMillion,
    ]),
  )
  const output = highest(reachable.flatMap((tier) => [tier.outputNanoPerMillion, tier.reasoningNanoPerMillion]))
  return { input, output }
}

function feesOf(prices: Prices, usage: Pick<Usage, 'images' | 'toolUses'>): Nano {
  let fees = BigInt(usage.images) * prices.perImageNano
  for (const [tool, uses] of Object.entries(usage.toolUses)) fees += BigInt(uses) * (prices.toolFeesNano[tool] ?? 0n)
  return fees
}

function highest(prices: readonly bigint[]): bigint {
  return prices.reduce((most, each) => (each > most ? each : most), 0n)
}
