import type { CatalogModel, Route } from '#contracts/catalog.ts'
import { Problem } from '#contracts/codes.ts'
import { constraintsOf } from '#contracts/constraints.ts'
import { sellPriceOf, type SellPriceAnswer } from '#calls/sell.ts'
import { constraintsOfKey } from '#db/api-key.ts'
import { newestCatalog } from '#db/catalog.ts'
import type { Scope } from '#db/database.ts'
import type { StartRequest } from '#db/run-start.ts'
import type { Database } from '#db/schema.ts'
import type { Prices } from '#domain/pricing.ts'
import { PLAIN_NEEDS, rankRoutes, type RankedRoutes, type RouteNeeds, type SkipReason } from '#domain/route-choice.ts'
import type { Kysely } from 'kysely'

export interface AskedRun {
  readonly request: StartRequest
  /** Whose constraints bind it too. */
  readonly keyId: string
}

/** A catalog model with its routes as a run would meet them. */
export interface ModelRoutes extends RankedRoutes<Route> {
  readonly model: CatalogModel
  /** What the wallet pays on a route. */
  readonly sold: ReadonlyMap<Route, SellPriceAnswer>
}

/**
 * The routes of a model that may serve a plain call of a run and can be paid from the pockets that were asked for, best
 * first, and the others with their reason.
 *
 * @throws Problem `unknown_model`
 */
export async function routesFor(
  db: Kysely<Database>,
  scope: Scope,
  { request, keyId }: AskedRun,
  name: string,
): Promise<ModelRoutes> {
  const { catalog } = await newestCatalog(db)
  const model = catalog.models.find((each) => each.name === name)
  if (!model) {
    throw new Problem('unknown_model', `There is no catalog model ${name}.`, {
      remedy: 'The models are listed at /api/v1/models.',
    })
  }
  const sold = new Map<Route, SellPriceAnswer>()
  for (const route of model.routes) sold.set(route, await sellPriceOf(db, scope, route))
  const ranked = rankRoutes(model, {
    needs: PLAIN_CHAT,
    bounds: constraintsOf(request.constraints, await constraintsOfKey(db, scope, keyId)),
    draw: 0,
    factsOf: (route) => ({
      hasProvider: true, // which ones there are is known to the workers
      hasPocket: canPay(request, route),
      prices: pricesOf(sold.get(route)),
      leastInputTokens: 0,
      mostInputTokens: 0,
    }),
  })
  return { model, sold, ...ranked }
}

/** Whether the model exists, is priced, may be used, and can be paid from the pockets that were asked for. */
export async function checkMoneyPath(db: Kysely<Database>, scope: Scope, asked: AskedRun): Promise<void> {
  const { model, candidates, skipped } = await routesFor(db, scope, asked, asked.request.model)
  const withoutPrice = model.routes.find(({ name }) => reasonOf(skipped, name) === 'no_price')
  if (withoutPrice) throw unpriced(model.name, withoutPrice)
  const withoutQuote = model.routes.find(({ name }) => reasonOf(skipped, name) === 'no_quote')
  if (candidates.length === 0 && withoutQuote) throw unexchanged(model.name, withoutQuote)
  if (candidates.length === 0) throw withoutRoute(model, skipped)
}

const PLAIN_CHAT: RouteNeeds = { ...PLAIN_NEEDS, kind: 'chat' }

function pricesOf(sold: SellPriceAnswer | undefined): Prices | 'no_price' | 'no_quote' {
  if (!sold) return 'no_price'
  return sold.ok ? sold.price.prices : sold.reason
}

type Skipped = RankedRoutes<Route>['skipped']

function reasonOf(skipped: Skipped, route: string): SkipReason | undefined {
  return skipped.find((each) => each.route === route)?.reason
}

/** Where money would open a route that may be used, money is what is missing. */
function withoutRoute(model: CatalogModel, skipped: Skipped): Problem {
  const payable = model.routes.filter(({ name }) => reasonOf(skipped, name) === 'no_pocket')
  const extra = { skipped }
  if (payable.length > 0) {
    const wanted = new Set(payable.map((route) => `${route.balanceClass} ${route.currency}`))
    return new Problem('no_route', `No route of ${model.name} can be paid from these pockets.`, {
      remedy: `Put in one of: ${[...wanted].join(', ')}.`,
      extra,
    })
  }
  const reasons = skipped.map(({ route, reason }) => `${route}: ${reason}`).join(', ')
  return new Problem('route_not_allowed', `No route of ${model.name} may serve this run (${reasons}).`, {
    remedy: 'Ask for another model, or loosen the constraints of the run or of its key.',
    extra,
  })
}

function unpriced(model: string, { name, provider, upstreamModel, currency, costCurrency = currency }: Route): Problem {
  return new Problem('no_price', `The route ${name} of ${model} has no price, and nothing runs unpriced.`, {
    remedy: `Give ${provider} ${upstreamModel} a price in ${costCurrency}, or take the route out of the catalog.`,
    extra: { route: name },
  })
}

function unexchanged(model: string, { name, currency }: Route): Problem {
  return new Problem('no_quote', `The route ${name} of ${model} has no price in ${currency} at the moment.`, {
    remedy: 'An operator has to store an exchange rate with POST /api/v1/quotes.',
    extra: { route: name },
  })
}

function canPay(request: StartRequest, route: Route): boolean {
  return request.envelope.pockets.some(
    ({ balanceClass, amount, exchangeTo }) =>
      balanceClass === route.balanceClass && (exchangeTo ?? amount.currency) === route.currency,
  )
}
