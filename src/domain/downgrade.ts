import type { Prices, TokenPrices } from './pricing.ts'

/** A route with the money that pays it, and what it costs of that. */
export interface PaidRoute {
  readonly balanceClass: string
  readonly currency: string
  readonly prices: Prices
}

const COMPONENTS = Object.freeze([
  'inputNanoPerMillion',
  'cachedInputNanoPerMillion',
  'cacheWriteNanoPerMillion',
  'outputNanoPerMillion',
  'reasoningNanoPerMillion',
] as const satisfies readonly (keyof TokenPrices)[])

/**
 * Whether going on with other routes can help once every route of before was too dear: one of them costs less for some
 * usage, or is paid with money that nothing was paid with before. From direct money to credit alone is always a step down.
 */
export function isStepDown(before: readonly PaidRoute[], after: readonly PaidRoute[]): boolean {
  const isCreditAlone = after.length > 0 && after.every(({ balanceClass }) => balanceClass === 'credit')
  if (isCreditAlone && before.some(({ balanceClass }) => balanceClass !== 'credit')) return true
  return after.some((route) => !before.some((known) => isSameMoney(known, route) && costsNoMore(known, route)))
}

function isSameMoney(one: PaidRoute, other: PaidRoute): boolean {
  return one.balanceClass === other.balanceClass && one.currency === other.currency
}

/** Whether there is no usage for which `known` costs more than `other`. */
function costsNoMore({ prices: known }: PaidRoute, { prices: other }: PaidRoute): boolean {
  if (known.perCallNano > other.perCallNano || known.perImageNano > other.perImageNano) return false
  const fees = Object.entries(known.toolFeesNano)
  if (fees.some(([tool, fee]) => fee > (other.toolFeesNano[tool] ?? 0n))) return false
  const thresholds = [known, other].flatMap(({ tiers }) => tiers.map(({ aboveInputTokens }) => aboveInputTokens + 1))
  return [0, ...thresholds].every((tokens) => {
    const [ours, theirs] = [tierOf(known, tokens), tierOf(other, tokens)]
    return COMPONENTS.every((component) => ours[component] <= theirs[component])
  })
}

function tierOf(prices: Prices, inputTokens: number): TokenPrices {
  return prices.tiers.findLast(({ aboveInputTokens }) => inputTokens > aboveInputTokens) ?? prices
}
