import {
  bookedPricesSchema,
  priceComparisonSchema,
  priceListSchema,
  pricesQuerySchema,
  type PriceComparison,
} from '#contracts/api-price.ts'
import { comparePrices, importPrices, listPrices, type ListComparison, type ListedChange } from '#db/price.ts'
import { formatNano } from '#domain/money.ts'
import { componentsOf } from '#domain/price-list.ts'
import type { Prices } from '#domain/pricing.ts'
import { tenantDb } from './access.ts'
import type { Api } from './api-deps.ts'
import { answerPost } from './idempotency.ts'
import { pageAsked, pageOf } from './page.ts'

const tags = ['Prices']

/** The price book: what providers bill. Operators only; customers see what they are sold at, with the models. */
export function priceRoutes(app: Api): void {
  app.post(
    '/prices',
    {
      config: { access: 'operator', changesInstallation: true, audit: 'price.import' },
      schema: {
        tags,
        summary: 'Add prices that differ from those in force',
        description:
          'A price never changes: one that differs is a new row, in force at once or from `effectiveAt` on. What is held ' +
          'already is charged at the price it was held with.',
        body: priceListSchema,
        response: { 200: priceComparisonSchema },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: priceComparisonSchema }, async (trx) => ({
        status: 200,
        body: comparisonView(await importPrices(trx, request.body.prices)),
      })),
  )

  app.post(
    '/prices/comparison',
    {
      config: { access: 'operator', audit: 'changes_nothing' },
      schema: {
        tags,
        summary: 'What a price list would change',
        description: 'Changes nothing.',
        body: priceListSchema,
        response: { 200: priceComparisonSchema },
      },
    },
    async (request) => comparisonView(await comparePrices(tenantDb(request), request.body.prices)),
  )

  app.get(
    '/prices',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'Prices in force, and those that come into force later',
        querystring: pricesQuerySchema,
        response: { 200: bookedPricesSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { provider } = request.query
      const found = await listPrices(db, { provider, page: pageAsked(request) })
      const { items, nextCursor } = pageOf(request, found)
      return {
        prices: items.map(({ prices, effectiveAt, isInForce, ...key }) => ({
          ...key,
          effectiveAt: effectiveAt.toISOString(),
          inForce: isInForce,
          components: componentsView(prices),
        })),
        nextCursor,
      }
    },
  )
}

function comparisonView({ added, changed, unchanged }: ListComparison): PriceComparison {
  return { added: added.map(changeView), changed: changed.map(changeView), unchanged }
}

function changeView({ changes, ...key }: ListedChange): PriceComparison['added'][number] {
  const text = (nano: bigint | null) => (nano === null ? null : formatNano(nano))
  return { ...key, changes: changes.map(({ component, from, to }) => ({ component, from: text(from), to: text(to) })) }
}

function componentsView(prices: Prices): Record<string, string> {
  return Object.fromEntries(
    [...componentsOf(prices)].flatMap(([name, nano]) => (nano === 0n ? [] : [[name, formatNano(nano)]])),
  )
}
