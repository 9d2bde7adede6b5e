import { ceilDivide, type Nano } from './money.ts'

/** Prices of one upstream model, in integer nano per 1 000 000 tokens, and per call. Immutable once recorded. */
export interface Prices {
  readonly inputNanoPerMillion: bigint
  readonly cachedInputNanoPerMillion: bigint
  readonly outputNanoPerMillion: bigint
  readonly perCallNano: bigint
}

/** Tokens of one attempt. `cachedInput` is the part of `input` served from the provider's cache. */
export interface Usage {
  readonly input: number
  readonly cachedInput: number
  readonly output: number
}

const TOKENS_PER_PRICE = 1_000_000n

/**
 * What an attempt costs: one ceil over the sum of its components.
 *
 * @example 1000 input tokens at 0.40 USD and 200 output tokens at 1.60 USD per million: 720 000 nano.
 */
export function chargeOf(prices: Prices, usage: Usage): Nano {
  const fresh = BigInt(usage.input - usage.cachedInput)
  const tokens =
    fresh * prices.inputNanoPerMillion +
    BigInt(usage.cachedInput) * prices.cachedInputNanoPerMillion +
    BigInt(usage.output) * prices.outputNanoPerMillion
  return ceilDivide(tokens, TOKENS_PER_PRICE) + prices.perCallNano
}

/** The most an attempt may cost: nothing cached (unless that is dearer), and every output token used. Rounds up. */
export function worstCaseOf(
  prices: Prices,
  bound: { readonly inputTokens: number; readonly maxOutputTokens: number },
): Nano {
  const dearest =
    prices.cachedInputNanoPerMillion > prices.inputNanoPerMillion
      ? prices.cachedInputNanoPerMillion
      : prices.inputNanoPerMillion
  return chargeOf(
    { ...prices, inputNanoPerMillion: dearest },
    { input: bound.inputTokens, cachedInput: 0, output: bound.maxOutputTokens },
  )
}
