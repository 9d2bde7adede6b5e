import type { Nano } from './money.ts'
import type { Prices, TokenPrices } from './pricing.ts'

/** What one component of a price is now, and what it was: null where there is none. */
export interface PriceChange {
  readonly component: string
  readonly from: Nano | null
  readonly to: Nano | null
}

/** What differs between two prices, by component: the tokens, then the fees, then the tiers. Empty when nothing does. */
export function changesBetween(before: Prices, after: Prices): readonly PriceChange[] {
  const from = componentsOf(before)
  const to = componentsOf(after)
  const names = new Set([...from.keys(), ...to.keys()])
  return [...names].flatMap((component) => {
    const change = { component, from: from.get(component) ?? null, to: to.get(component) ?? null }
    return change.from === change.to ? [] : [change]
  })
}

/** Every component of a price by its name; a fee of nothing is as good as none. */
export function componentsOf(prices: Prices): ReadonlyMap<string, Nano> {
  const fees = Object.entries(prices.toolFeesNano).map(([tool, fee]) => [`toolFees.${tool}`, fee] as const)
  const tiers = prices.tiers.flatMap((tier) => tokenComponents(tier, ` above ${tier.aboveInputTokens}`))
  return new Map([
    ...tokenComponents(prices, ''),
    ['perCall', prices.perCallNano],
    ['perImage', prices.perImageNano],
    ...fees,
    ...tiers,
  ])
}

function tokenComponents(tokens: TokenPrices, suffix: string): readonly (readonly [string, Nano])[] {
  return [
    [`input${suffix}`, tokens.inputNanoPerMillion],
    [`cachedInput${suffix}`, tokens.cachedInputNanoPerMillion],
    [`cacheWrite${suffix}`, tokens.cacheWriteNanoPerMillion],
    [`output${suffix}`, tokens.outputNanoPerMillion],
    [`reasoning${suffix}`, tokens.reasoningNanoPerMillion],
  ]
}
