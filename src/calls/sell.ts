import type { Route } from '#contracts/catalog.ts'
import type { PlannedCost } from '#contracts/stored.ts'
import { priceInForce, type Price } from '#db/price.ts'
import { quoteInForce, type QuoteOwner } from '#db/quote.ts'
import type { Database } from '#db/schema.ts'
import { worstCaseOf, type UsageBound } from '#domain/pricing.ts'
import { sellOf } from '#domain/selling.ts'
import type { Kysely } from 'kysely'

/** What a wallet pays on a route. */
export interface SellPrice extends Price {
  /** What the provider bills, where that is not the same. */
  readonly cost?: Omit<PlannedCost, 'held'>
}

export type SellPriceAnswer =
  | { readonly ok: true; readonly price: SellPrice }
  /** `no_quote`: it is billed in another currency than it is sold in, and no rate between them is in force. */
  | { readonly ok: false; readonly reason: 'no_price' | 'no_quote' }

/** What a route is sold at now: at cost, or as far above it, and in another currency, as the catalog says. */
export async function sellPriceOf(
  db: Kysely<Database>,
  owner: QuoteOwner,
  route: Pick<Route, 'provider' | 'upstreamModel' | 'currency' | 'costCurrency' | 'markupBps'>,
): Promise<SellPriceAnswer> {
  const { provider, upstreamModel, markupBps } = route
  const currency = route.costCurrency ?? route.currency
  const price = await priceInForce(db, { provider, upstreamModel, currency })
  if (!price) return { ok: false, reason: 'no_price' }
  const isExchanged = currency !== route.currency
  if (!isExchanged && markupBps === 0) return { ok: true, price }
  const pair = { sellCurrency: currency, buyCurrency: route.currency }
  const quote = isExchanged ? await quoteInForce(db, owner, pair) : null
  if (quote === undefined) return { ok: false, reason: 'no_quote' }
  const prices = sellOf(price.prices, { markupBps, quote })
  return { ok: true, price: { id: price.id, prices, cost: { currency, prices: price.prices, markupBps, quote } } }
}

/** The part of a plan that says what the provider bills; nothing where that is what is paid. */
export function plannedCost(price: SellPrice, bound: UsageBound): { readonly cost?: PlannedCost } {
  return price.cost ? { cost: { ...price.cost, held: worstCaseOf(price.cost.prices, bound) } } : {}
}
