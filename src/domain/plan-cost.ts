import type { Nano } from './money.ts'
import { chargeOf, NO_USAGE, worstCaseOf, type Prices } from './pricing.ts'

interface Range {
  readonly least: number
  readonly most: number
}

/** Calls that a run is going to make, with the routes that may serve them. */
export interface CostedStep {
  readonly calls: Range
  /** Of one call. */
  readonly inputTokens: Range
  readonly outputTokens: Range
  readonly routes: readonly CostedRoute[]
}

export interface CostedRoute {
  readonly balanceClass: string
  readonly currency: string
  readonly maxOutputTokens: number
  readonly prices: Prices
}

/** What a plan costs when this money alone pays: the least on the cheapest routes, the most on the dearest. In nano. */
export interface CostRange {
  readonly balanceClass: string
  readonly currency: string
  readonly low: Nano
  readonly high: Nano
}

/**
 * What the steps of a plan cost, for each balance class and currency that its routes are paid in. An estimate: what a
 * provider counts and bills is known afterwards only.
 */
export function costOfPlan(steps: readonly CostedStep[]): readonly CostRange[] {
  const kinds = new Map(steps.flatMap(({ routes }) => routes).map((route) => [kindOf(route), route] as const))
  return [...kinds]
    .toSorted(([left], [right]) => (left < right ? 1 : -1))
    .map(([kind, { balanceClass, currency }]) => {
      const costs = steps.map((step) =>
        costOfStep(
          step,
          step.routes.filter((route) => kindOf(route) === kind),
        ),
      )
      return {
        balanceClass,
        currency,
        low: costs.reduce((sum, { low }) => sum + low, 0n),
        high: costs.reduce((sum, { high }) => sum + high, 0n),
      }
    })
}

function kindOf({ balanceClass, currency }: Pick<CostedRoute, 'balanceClass' | 'currency'>): string {
  return `${balanceClass} ${currency}`
}

function costOfStep(step: CostedStep, routes: readonly CostedRoute[]): { readonly low: Nano; readonly high: Nano } {
  const { calls, inputTokens, outputTokens } = step
  const lows = routes.map(({ prices }) =>
    chargeOf(prices, { ...NO_USAGE, input: inputTokens.least, output: outputTokens.least }),
  )
  const highs = routes.map(({ prices, maxOutputTokens }) =>
    worstCaseOf(prices, {
      inputTokens: inputTokens.most,
      maxOutputTokens: Math.min(outputTokens.most, maxOutputTokens),
    }),
  )
  const cheapest = lows.reduce<Nano | undefined>(
    (least, each) => (least === undefined || each < least ? each : least),
    undefined,
  )
  const dearest = highs.reduce((most, each) => (each > most ? each : most), 0n)
  return { low: BigInt(calls.least) * (cheapest ?? 0n), high: BigInt(calls.most) * dearest }
}
