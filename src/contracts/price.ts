import { parseDecimal } from '#domain/money.ts'
import type { Prices, TokenPrices } from '#domain/pricing.ts'
import type { CatalogPrice } from './catalog.ts'
import { Problem } from './codes.ts'

/** A price as people write it, in nano. */
export function pricesOf(price: CatalogPrice): Prices {
  return {
    ...tokenPricesOf(price),
    perCallNano: nanoOf(price.perCall ?? '0'),
    perImageNano: nanoOf(price.perImage ?? '0'),
    toolFeesNano: Object.fromEntries(feesOf(price.toolFees ?? {})),
    tiers: (price.tiers ?? []).map((tier) => ({
      aboveInputTokens: tier.aboveInputTokens,
      ...tokenPricesOf(tier),
    })),
  }
}

function tokenPricesOf(
  price: Pick<CatalogPrice, 'input' | 'cachedInput' | 'cacheWrite' | 'output' | 'reasoning'>,
): TokenPrices {
  return {
    inputNanoPerMillion: nanoOf(price.input),
    cachedInputNanoPerMillion: nanoOf(price.cachedInput ?? price.input),
    cacheWriteNanoPerMillion: nanoOf(price.cacheWrite ?? price.input),
    outputNanoPerMillion: nanoOf(price.output),
    reasoningNanoPerMillion: nanoOf(price.reasoning ?? price.output),
  }
}

/** A fee of nothing is none. */
function feesOf(fees: Readonly<Record<string, string>>): readonly (readonly [string, bigint])[] {
  return Object.entries(fees).flatMap(([tool, fee]) => {
    const nano = nanoOf(fee)
    return nano === 0n ? [] : [[tool, nano] as const]
  })
}

function nanoOf(text: string): bigint {
  const parsed = parseDecimal(text)
  if (!parsed.ok) throw new Problem('invalid_amount', `${text} is not a price`)
  return parsed.nano
}
