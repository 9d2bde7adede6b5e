import type { PlannedStep } from '#contracts/agents.ts'
import type { RunPlan } from '#contracts/api-plan.ts'
import { balancesOf, type PocketBalance } from '#db/call.ts'
import type { Scope } from '#db/database.ts'
import { costsOfRuns } from '#db/run-cost.ts'
import { envelopeOfRun, startRun } from '#db/run-start.ts'
import type { Database } from '#db/schema.ts'
import { toAmount } from '#domain/money.ts'
import { costOfPlan, type CostedRoute, type CostRange } from '#domain/plan-cost.ts'
import type { Kysely } from 'kysely'
import type { RouteDeps } from './api-deps.ts'
import { priceView } from './catalog-routes.ts'
import { routesFor, type AskedRun, type ModelRoutes } from './money-path.ts'
import { namedDataset } from './row-ask.ts'
import type { RunCheck } from './run-request.ts'

/** Fewer runs than this say little about the next one. */
const FEWEST_RUNS = 5

/**
 * What a run would do and cost.
 *
 * @throws Problem everything that would refuse the run
 */
export async function planRun(
  db: Kysely<Database>,
  scope: Scope,
  { agents, nowMs, check, ...asked }: AskedRun & Pick<RouteDeps, 'agents' | 'nowMs'> & { readonly check: RunCheck },
): Promise<RunPlan> {
  const { request, keyId } = asked
  const { input } = await check(db, scope, asked)
  const funded = await tryFunding(db, (trx) => startRun(trx, scope, { request, input, keyId, nowMs: nowMs() }), scope)
  const { agent, model } = request
  const dataset = await namedDataset(db, scope, input)
  const steps = agents.find(({ name }) => name === agent)?.plan?.(input, { ...(dataset && { dataset }) })
  const names = [...new Set([model, ...(steps ?? []).flatMap((step) => step.model ?? [])])]
  const models = new Map<string, ModelRoutes>()
  for (const name of names) models.set(name, await routesFor(db, scope, asked, name))
  const estimate = costOfPlan(
    (steps ?? []).map((step) => ({ ...step, routes: costedRoutes(models, step.model ?? model) })),
  )
  return {
    agent,
    model,
    input,
    routes: [...models.values()].flatMap(routeViews),
    steps: steps ? steps.map((step) => stepView(step, model)) : null,
    estimate: estimate.map(({ balanceClass, currency, low, high }) => ({
      balanceClass: balanceClass === 'credit' ? 'credit' : 'direct',
      currency,
      low: toAmount(low, currency),
      high: toAmount(high, currency),
    })),
    history: await historyOf(db, scope, { agent, model }),
    coversHigh: steps ? coversHigh(funded, estimate) : null,
  }
}

/** Starts the run in a transaction that is given up: what would refuse it does, and what is left for its work is seen. */
async function tryFunding(
  db: Kysely<Database>,
  start: (trx: Parameters<typeof startRun>[0]) => Promise<string>,
  scope: Scope,
): Promise<readonly PocketBalance[]> {
  const trx = await db.startTransaction().execute()
  try {
    const runId = await start(trx)
    return await balancesOf(trx, scope, await envelopeOfRun(trx, scope, runId))
  } finally {
    await trx.rollback().execute()
  }
}

function costedRoutes(models: ReadonlyMap<string, ModelRoutes>, name: string): readonly CostedRoute[] {
  const known = models.get(name)
  return (known?.candidates ?? []).flatMap((route) => {
    const sold = known?.sold.get(route)
    const { balanceClass, currency, maxOutputTokens } = route
    return sold?.ok ? [{ balanceClass, currency, maxOutputTokens, prices: sold.price.prices }] : []
  })
}

function routeViews({ model, candidates, skipped, sold }: ModelRoutes): RunPlan['routes'] {
  const others = model.routes.filter((route) => !candidates.includes(route))
  return [...candidates, ...others].map((route) => {
    const { name, provider, upstreamModel, balanceClass, currency } = route
    const price = sold.get(route)
    return {
      model: model.name,
      route: name,
      provider,
      upstreamModel,
      balanceClass,
      currency,
      price: price?.ok ? priceView(price.price.prices, currency) : null,
      skipped: skipped.find((each) => each.route === name)?.reason ?? null,
    }
  })
}

function stepView({ path, calls, inputTokens, outputTokens, model: own }: PlannedStep, model: string) {
  return {
    path,
    model: own ?? model,
    calls: { ...calls },
    inputTokens: { ...inputTokens },
    outputTokens: { ...outputTokens },
  }
}

async function historyOf(
  db: Kysely<Database>,
  scope: Scope,
  kind: { readonly agent: string; readonly model: string },
): Promise<RunPlan['history']> {
  const costs = await costsOfRuns(db, scope, kind)
  const runs = costs[0]?.runs ?? 0
  if (runs < FEWEST_RUNS) return null
  return {
    runs,
    costs: costs.map(({ balanceClass, currency, p10, p90 }) => ({
      balanceClass,
      currency,
      p10: toAmount(p10, currency),
      p90: toAmount(p90, currency),
    })),
  }
}

function coversHigh(funded: readonly PocketBalance[], estimate: readonly CostRange[]): boolean {
  return estimate.some(({ balanceClass, currency, high }) =>
    funded.some(
      (pocket) => pocket.balanceClass === balanceClass && pocket.currency === currency && pocket.balance >= high,
    ),
  )
}
