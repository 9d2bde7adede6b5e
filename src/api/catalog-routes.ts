import { sellPriceOf } from '#calls/sell.ts'
import { startable } from '#contracts/agents.ts'
import { agentListSchema, modelListSchema, modelSchema, type ModelList } from '#contracts/api-catalog.ts'
import type { Route } from '#contracts/catalog.ts'
import { newestCatalog } from '#db/catalog.ts'
import type { Database } from '#db/schema.ts'
import { toAmount } from '#domain/money.ts'
import type { Prices, TokenPrices } from '#domain/pricing.ts'
import type { Kysely } from 'kysely'
import { z } from 'zod'
import { callerOfRequest, notFound, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'

const tags = ['Models and agents']

type RouteView = ModelList['models'][number]['routes'][number]

export function catalogRoutes(app: Api, { agents }: RouteDeps): void {
  app.get(
    '/models',
    {
      config: { access: 'any' },
      schema: {
        tags,
        summary: 'Catalog models, their routes and the prices in force',
        response: { 200: modelListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { organisationId } = callerOfRequest(request)
      const { version, catalog } = await newestCatalog(db)
      const models: ModelList['models'] = []
      for (const { name, kind, strategy, routes } of catalog.models) {
        models.push({ name, kind, strategy, routes: await routeViews(db, organisationId, routes) })
      }
      return { catalogVersion: version, models }
    },
  )

  app.get(
    '/models/:name',
    {
      config: { access: 'any' },
      schema: {
        tags,
        summary: 'A catalog model, its routes and the prices in force',
        params: z.object({ name: z.string() }),
        response: { 200: modelSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { organisationId } = callerOfRequest(request)
      const { catalog } = await newestCatalog(db)
      const model = catalog.models.find(({ name }) => name === request.params.name)
      if (!model) throw notFound('model', request.params.name)
      const { name, kind, strategy, routes } = model
      return { name, kind, strategy, routes: await routeViews(db, organisationId, routes) }
    },
  )

  app.get(
    '/agents',
    { config: { access: 'any' }, schema: { tags, summary: 'What can be run', response: { 200: agentListSchema } } },
    () => ({
      agents: startable(agents).map(({ name, description, input }) => ({ name, description, input: { ...input } })),
    }),
  )
}

async function routeViews(
  db: Kysely<Database>,
  organisationId: string,
  routes: readonly Route[],
): Promise<RouteView[]> {
  const views: RouteView[] = []
  for (const { timeoutMs: _, ...route } of routes) {
    const sold = await sellPriceOf(db, { organisationId }, route)
    views.push({ ...route, price: sold.ok ? priceView(sold.price.prices, route.currency) : null })
  }
  return views
}

/** The prices of a route as customers see them. */
export function priceView(prices: Prices, currency: string): NonNullable<RouteView['price']> {
  const amount = (nano: bigint) => toAmount(nano, currency)
  const fees = Object.entries(prices.toolFeesNano).map(([tool, fee]) => [tool, amount(fee)] as const)
  return {
    ...tokenPricesView(prices, currency),
    perCall: amount(prices.perCallNano),
    perImage: amount(prices.perImageNano),
    toolFees: Object.fromEntries(fees),
    tiers: prices.tiers.map((tier) => ({
      aboveInputTokens: tier.aboveInputTokens,
      ...tokenPricesView(tier, currency),
    })),
  }
}

function tokenPricesView(prices: TokenPrices, currency: string) {
  return {
    inputPerMillionTokens: toAmount(prices.inputNanoPerMillion, currency),
    cachedInputPerMillionTokens: toAmount(prices.cachedInputNanoPerMillion, currency),
    cacheWritePerMillionTokens: toAmount(prices.cacheWriteNanoPerMillion, currency),
    outputPerMillionTokens: toAmount(prices.outputNanoPerMillion, currency),
    reasoningPerMillionTokens: toAmount(prices.reasoningNanoPerMillion, currency),
  }
}
