import type { Catalog, Route } from '#contracts/catalog.ts'
import type { ChatMessage } from '#contracts/chat.ts'
import type { BalanceClass } from '#contracts/names.ts'
import type { Plan } from '#contracts/stored.ts'
import type { Pocket } from '#db/call.ts'
import { inputTokenBound } from '#domain/token-bound.ts'
import { worstCaseOf } from '#domain/pricing.ts'
import type { CallBody } from './call.ts'
import { plannedCost, type SellPrice, type SellPriceAnswer } from './sell.ts'

/** A route that can serve this call and be paid from this envelope. */
export interface Candidate {
  readonly route: Route
  readonly price: SellPrice
  readonly pocket: Pocket
}

export interface SkippedRoute {
  readonly route: string
  readonly reason: 'no_price' | 'no_quote' | 'no_pocket' | 'no_provider'
}

/** What is known about the routes of a catalog model for one call, before any is tried. */
export interface RouteChoice {
  readonly candidates: readonly Candidate[]
  readonly skipped: readonly SkippedRoute[]
}

/** Most tokens the prompt can have on a route: the provider refuses, unbilled, what exceeds its context. */
function inputBoundOn(route: Route, body: CallBody): number {
  const schema = body.schema ? JSON.stringify(body.schema) : ''
  return Math.min(route.contextTokens, inputTokenBound(body.messages.map(textOf), schema))
}

export function planAttempt(
  candidate: Candidate,
  request: {
    readonly body: CallBody
    readonly why: Plan['why']
    readonly after: Plan['after']
    readonly skipped: readonly SkippedRoute[]
  },
): { readonly plan: Plan; readonly amount: bigint } {
  const { route, price } = candidate
  const bound = inputBoundOn(route, request.body)
  const maxOutputTokens = Math.min(request.body.maxTokens, route.maxOutputTokens)
  const usageBound = { inputTokens: bound, maxOutputTokens }
  const plan: Plan = {
    route: route.name,
    provider: route.provider,
    upstreamModel: route.upstreamModel,
    balanceClass: route.balanceClass,
    currency: route.currency,
    priceId: price.id,
    prices: price.prices,
    ...plannedCost(price, usageBound),
    inputTokenBound: bound,
    maxOutputTokens,
    timeoutMs: route.timeoutMs,
    why: request.why,
    after: request.after,
    skipped: [...request.skipped],
  }
  return { plan, amount: worstCaseOf(price.prices, usageBound) }
}

/** Sorts the routes of a model into those that can be tried, in their order, and those that cannot, with the reason. */
export async function chooseRoutes(
  model: Catalog['models'][number],
  known: {
    readonly pockets: readonly Pocket[]
    readonly hasProvider: (name: string) => boolean
    readonly priceOf: (route: Route) => Promise<SellPriceAnswer>
  },
): Promise<RouteChoice> {
  const candidates: Candidate[] = []
  const skipped: SkippedRoute[] = []
  for (const route of model.routes) {
    const sold = await known.priceOf(route)
    const pocket = known.pockets.find((each) => pays(each, route.balanceClass, route.currency))
    if (!sold.ok) skipped.push({ route: route.name, reason: sold.reason })
    else if (!known.hasProvider(route.provider)) skipped.push({ route: route.name, reason: 'no_provider' })
    else if (!pocket) skipped.push({ route: route.name, reason: 'no_pocket' })
    else candidates.push({ route, price: sold.price, pocket })
  }
  return { candidates, skipped }
}

function textOf(message: ChatMessage): { readonly content: string } {
  return { content: typeof message.content === 'string' ? message.content : JSON.stringify(message.content) }
}

function pays(pocket: Pocket, balanceClass: BalanceClass, currency: string): boolean {
  return pocket.balanceClass === balanceClass && pocket.currency === currency
}
