import { ceilDivide, type Nano } from './money.ts'
import type { Prices, PriceTier, TokenPrices } from './pricing.ts'

/** How what a provider bills is sold: above it by basis points, and in another currency at a quote. */
export interface SaleTerms {
  readonly markupBps: number
  /** `sell` nano of the cost's currency for `buy` nano of the one it is sold in; null when they are the same. */
  readonly quote: { readonly sell: Nano; readonly buy: Nano } | null
}

const BPS_PER_WHOLE = 10_000n

/**
 * The prices that a wallet pays for what costs `cost`: each component rounded up once.
 *
 * @example 1 USD per million at a markup of 250 bps and 1 USD for 7 CNY is sold at 7.175 CNY per million.
 */
export function sellOf(cost: Prices, terms: SaleTerms): Prices {
  const sold = (nano: Nano) => soldFor(nano, terms)
  const soldTokens = (tokens: TokenPrices): TokenPrices => ({
    inputNanoPerMillion: sold(tokens.inputNanoPerMillion),
    cachedInputNanoPerMillion: sold(tokens.cachedInputNanoPerMillion),
    cacheWriteNanoPerMillion: sold(tokens.cacheWriteNanoPerMillion),
    outputNanoPerMillion: sold(tokens.outputNanoPerMillion),
    reasoningNanoPerMillion: sold(tokens.reasoningNanoPerMillion),
  })
  return {
    ...soldTokens(cost),
    perCallNano: sold(cost.perCallNano),
    perImageNano: sold(cost.perImageNano),
    toolFeesNano: Object.fromEntries(Object.entries(cost.toolFeesNano).map(([tool, fee]) => [tool, sold(fee)])),
    tiers: cost.tiers.map((tier): PriceTier => ({
      aboveInputTokens: tier.aboveInputTokens,
      ...soldTokens(tier),
    })),
  }
}

/** What a cost is in the currency that it is sold in, rounded up, and with no markup. */
export function convertedCost(cost: Nano, quote: SaleTerms['quote']): Nano {
  return soldFor(cost, { markupBps: 0, quote })
}

function soldFor(nano: Nano, { markupBps, quote }: SaleTerms): Nano {
  const { sell, buy } = quote ?? { sell: 1n, buy: 1n }
  return ceilDivide(nano * (BPS_PER_WHOLE + BigInt(markupBps)) * buy, BPS_PER_WHOLE * sell)
}
