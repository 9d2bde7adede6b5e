import type { CatalogModel, Route } from '#contracts/catalog.ts'
import type { Plan } from '#contracts/stored.ts'
import type { Pocket } from '#db/call.ts'
import type { Price } from '#db/catalog.ts'
import { ceilDivide } from '#domain/money.ts'
import { worstCaseOf } from '#domain/pricing.ts'
import type { CallBody, Tight } from './call.ts'
import { isEmbedding, type PromptBound } from './prompt-size.ts'

/** A route that can serve this call and be paid from this envelope. */
export interface Candidate {
  readonly route: Route
  readonly price: Price
  readonly pocket: Pocket
}

export interface SkippedRoute {
  readonly route: string
  readonly reason: 'no_price' | 'no_pocket' | 'no_provider'
}

/** What is known about the routes of a catalog model for one call, before any is tried. */
export interface RouteChoice {
  readonly candidates: readonly Candidate[]
  readonly skipped: readonly SkippedRoute[]
}

const PPM = 1_000_000n

export interface AttemptRequest {
  readonly body: CallBody
  readonly prompt: PromptBound
  readonly why: Plan['why']
  readonly after: Plan['after']
  readonly skipped: readonly SkippedRoute[]
  /** By how much holds of this route are raised, in parts per million: it billed above one before. */
  readonly distrustPpm: number
  readonly tight: Tight
  /** What there is to pay from, in nano; only where `tight` says to fit in. */
  readonly free: bigint | undefined
}

/** What an attempt may use and the worst case that is held for it. Pure: it stands in the plan and is never made again. */
export function planAttempt(
  candidate: Candidate,
  request: AttemptRequest,
): { readonly plan: Plan; readonly amount: bigint } {
  const { route, price } = candidate
  const { prompt, distrustPpm } = request
  const asked = isEmbedding(request.body) ? 0 : Math.min(request.body.maxTokens, route.maxOutputTokens)
  const worstCase = (maxOutputTokens: number): bigint => {
    const worst = worstCaseOf(price.prices, { inputTokens: prompt.tokens, maxOutputTokens, images: prompt.images })
    return ceilDivide(worst * (PPM + BigInt(distrustPpm)), PPM)
  }
  const maxOutputTokens = fitted(asked, request, worstCase)
  const plan: Plan = {
    route: route.name,
    provider: route.provider,
    upstreamModel: route.upstreamModel,
    balanceClass: route.balanceClass,
    currency: route.currency,
    priceId: price.id,
    prices: price.prices,
    inputTokenBound: prompt.tokens,
    maxOutputTokens,
    bound: {
      by: prompt.by,
      ...(prompt.images > 0 && { images: prompt.images }),
      ...(distrustPpm > 0 && { distrustPpm }),
      ...(maxOutputTokens < asked && { clampedFrom: asked }),
    },
    timeoutMs: route.timeoutMs,
    ...(!route.capabilities.streaming && { streaming: false }),
    ...(route.capabilities.reasoning && { reasoning: true }),
    ...(route.firstByteTimeoutMs !== undefined && { firstByteTimeoutMs: route.firstByteTimeoutMs }),
    why: request.why,
    after: request.after,
    skipped: [...request.skipped],
  }
  return { plan, amount: worstCase(maxOutputTokens) }
}

/** The most output that fits into a caller's share of the free money, and its floor at least, if the call allows that. */
function fitted(asked: number, { tight, free }: AttemptRequest, worstCase: (tokens: number) => bigint): number {
  if (tight.policy !== 'clamp' || free === undefined) return asked
  const share = free / BigInt(tight.parallelism)
  if (worstCase(asked) <= share || asked <= tight.floorTokens) return asked
  if (worstCase(tight.floorTokens) > share) return tight.floorTokens
  let fits = tight.floorTokens
  let tooMuch = asked
  while (tooMuch - fits > 1) {
    const middle = fits + Math.floor((tooMuch - fits) / 2)
    if (worstCase(middle) <= share) fits = middle
    else tooMuch = middle
  }
  return fits
}

/** Sorts the routes of a model into those that can be tried, in their order, and those that cannot, with the reason. */
export async function chooseRoutes(
  model: CatalogModel,
  known: {
    readonly pockets: readonly Pocket[]
    readonly hasProvider: (name: string) => boolean
    readonly priceOf: (route: Route) => Promise<Price | undefined>
  },
): Promise<RouteChoice> {
  const candidates: Candidate[] = []
  const skipped: SkippedRoute[] = []
  for (const route of model.routes) {
    const price = await known.priceOf(route)
    const pocket = known.pockets.find((each) => pays(each, route))
    if (!price) skipped.push({ route: route.name, reason: 'no_price' })
    else if (!known.hasProvider(route.provider)) skipped.push({ route: route.name, reason: 'no_provider' })
    else if (!pocket) skipped.push({ route: route.name, reason: 'no_pocket' })
    else candidates.push({ route, price, pocket })
  }
  return { candidates, skipped }
}

/** Whether each route of a model has a pocket that pays it. */
export function payAll(pockets: readonly Pocket[], model: CatalogModel): boolean {
  return model.routes.every((route) => pockets.some((pocket) => pays(pocket, route)))
}

function pays(pocket: Pocket, { balanceClass, currency }: Route): boolean {
  return pocket.balanceClass === balanceClass && pocket.currency === currency
}
