import { costOfPlan, type CostedRoute } from '#domain/plan-cost.ts'
import { plainPrices } from '#domain/pricing.ts'
import { expect, test } from 'vitest'

function route(balanceClass: string, dollars: bigint): CostedRoute {
  const perMillion = dollars * 1_000_000_000n
  const prices = plainPrices({ inputNanoPerMillion: perMillion, outputNanoPerMillion: 2n * perMillion })
  return { balanceClass, currency: 'USD', maxOutputTokens: 500, prices }
}

test('a plan costs the least on its cheapest and the most on its dearest routes, for each money that may pay it', () => {
  const step = {
    calls: { least: 1, most: 3 },
    inputTokens: { least: 100, most: 1_000 },
    outputTokens: { least: 10, most: 1_000 },
  }
  const routes = [route('direct', 1n), route('direct', 4n), route('credit', 2n)]
  expect(
    costOfPlan([
      { ...step, routes },
      { ...step, routes: [route('direct', 1n)] },
    ]),
  ).toEqual([
    // 120 µ$ and the same again; 3 × (1000 × 4 + 500 × 8) µ$ and 3 × (1000 + 500 × 2) µ$.
    { balanceClass: 'direct', currency: 'USD', low: 240_000n, high: 24_000_000n + 6_000_000n },
    { balanceClass: 'credit', currency: 'USD', low: 240_000n, high: 12_000_000n },
  ])
  expect(costOfPlan([])).toEqual([])
})
