import type { CatalogModel, Route } from '#contracts/catalog.ts'
import { outputBoundOf, type Plan } from '#contracts/stored.ts'
import type { Pocket } from '#db/call.ts'
import type { Room } from '#db/room.ts'
import { ceilDivide } from '#domain/money.ts'
import { worstCaseOf } from '#domain/pricing.ts'
import {
  drawOf,
  PLAIN_NEEDS,
  rankRoutes,
  type RankedRoutes,
  type RouteFacts,
  type RouteNeeds,
} from '#domain/route-choice.ts'
import type { Extras } from '#providers/provider.ts'
import type { Tight } from '#contracts/call-choices.ts'
import type { CallBody, CallRequest } from './call.ts'
import { imagesOf, isEmbedding, type PromptBound } from './prompt-size.ts'
import { plannedCost, type SellPrice, type SellPriceAnswer } from './sell.ts'

/** A route that can serve this call and be paid from this envelope. */
export interface Candidate {
  readonly route: Route
  readonly price: SellPrice
  readonly pocket: Pocket
  readonly prompt: PromptBound
}

/** What is known about the routes of a catalog model for one call, before any is tried. */
export interface RouteChoice {
  readonly candidates: readonly Candidate[]
  readonly skipped: RankedRoutes<Route>['skipped']
  /** Why no route may be tried although there are some: the prompt is longer than its run lets it be. */
  readonly tooLarge?: { readonly tokens: number; readonly cap: number } | undefined
}

const PPM = 1_000_000n

export interface AttemptRequest {
  readonly body: CallBody
  readonly why: Plan['why']
  readonly after: Plan['after']
  readonly skipped: Plan['skipped']
  /** By how much holds of this route are raised, in parts per million: it billed above one before. */
  readonly distrustPpm: number
  readonly tight: Tight
  /** What there is to pay from; only where `tight` says to fit in. */
  readonly room: Room | undefined
}

/** What an attempt may use and the worst case that is held for it. Pure: it stands in the plan and is never made again. */
export function planAttempt(
  candidate: Candidate,
  request: AttemptRequest,
): { readonly plan: Plan; readonly amount: bigint } {
  const { route, price, prompt } = candidate
  const { distrustPpm } = request
  const choices = choicesIn(request.body)
  const asked = outputOn(candidate, request.body)
  const raised = (worst: bigint) => ceilDivide(worst * (PPM + BigInt(distrustPpm)), PPM)
  const usageBound = (maxOutputTokens: number) => ({
    inputTokens: prompt.tokens,
    maxOutputTokens: outputBoundOf({ maxOutputTokens, choices }),
    images: prompt.images,
  })
  const worstCase = (maxOutputTokens: number) => raised(worstCaseOf(price.prices, usageBound(maxOutputTokens)))
  const maxOutputTokens = fitted(asked, request, (tokens) => ({
    money: worstCase(tokens),
    tokens: BigInt(prompt.tokens) + BigInt(outputBoundOf({ maxOutputTokens: tokens, choices })),
  }))
  const { cost } = plannedCost(price, usageBound(maxOutputTokens))
  const plan: Plan = {
    route: route.name,
    provider: route.provider,
    upstreamModel: route.upstreamModel,
    balanceClass: route.balanceClass,
    currency: route.currency,
    priceId: price.id,
    prices: price.prices,
    ...(cost && { cost: { ...cost, held: raised(cost.held) } }),
    inputTokenBound: prompt.tokens,
    maxOutputTokens,
    ...(choices > 1 && { choices }),
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

/**
 * The output of one answer that is asked for: what the caller wants, as far as the route gives it, and its limit by the
 * minute ever can.
 */
export function outputOn({ route, prompt }: Pick<Candidate, 'route' | 'prompt'>, body: CallBody): number {
  if (isEmbedding(body)) return 0
  const left = Math.floor(((route.limits.tokensPerMinute ?? Infinity) - prompt.tokens) / choicesIn(body))
  return Math.max(1, Math.min(body.maxTokens, route.maxOutputTokens, left))
}

/** How many answers a body asks for. */
export function choicesIn(body: CallBody): number {
  return isEmbedding(body) ? 1 : (body.choices ?? 1)
}

/** The most output that fits into a caller's share of what is free, and its floor at least, if the call allows that. */
function fitted(
  asked: number,
  { tight, room }: AttemptRequest,
  worstCase: (tokens: number) => { readonly money: bigint; readonly tokens: bigint },
): number {
  if (tight.policy !== 'clamp' || room === undefined) return asked
  const parts = BigInt(tight.parallelism)
  const isIn = (tokens: number): boolean => {
    const worst = worstCase(tokens)
    return worst.money <= room.money / parts && (room.tokens === null || worst.tokens <= room.tokens / parts)
  }
  if (asked <= tight.floorTokens || isIn(asked)) return asked
  if (!isIn(tight.floorTokens)) return tight.floorTokens
  let fits = tight.floorTokens
  let tooMuch = asked
  while (tooMuch - fits > 1) {
    const middle = fits + Math.floor((tooMuch - fits) / 2)
    if (isIn(middle)) fits = middle
    else tooMuch = middle
  }
  return fits
}

/** Sorts the routes of a model into those that can be tried, best first, and those that cannot, with the reason. */
export async function chooseRoutes(
  model: CatalogModel,
  known: {
    readonly callId: string
    readonly request: CallRequest
    readonly pockets: readonly Pocket[]
    /** Of a provider of this process; undefined for any other. */
    readonly extrasOf: (provider: string) => Extras | undefined
    readonly priceOf: (route: Route) => Promise<SellPriceAnswer>
    readonly promptOf: (route: Route) => Promise<PromptBound>
  },
): Promise<RouteChoice> {
  const { request, pockets } = known
  const facts = new Map<Route, { readonly sold: SellPriceAnswer; readonly prompt: PromptBound }>()
  for (const route of model.routes) {
    facts.set(route, { sold: await known.priceOf(route), prompt: await known.promptOf(route) })
  }
  const ranked = rankRoutes(model, {
    needs: needsOf(request),
    bounds: request.bounds ?? [],
    draw: drawOf(known.callId),
    factsOf: (route) => {
      const { sold, prompt } = facts.get(route) ?? {}
      return {
        hasProvider: known.extrasOf(route.provider) !== undefined,
        hasPocket: pockets.some((pocket) => pays(pocket, route)),
        extras: extrasOn(route, known.extrasOf(route.provider)),
        prices: sold?.ok ? sold.price.prices : (sold?.reason ?? 'no_price'),
        leastInputTokens: prompt?.least ?? 0,
        mostInputTokens: prompt?.tokens ?? route.contextTokens,
        promptCap: request.inputTokensPerCall,
      }
    },
  })
  const candidates = ranked.candidates.flatMap((route) => {
    const { sold, prompt } = facts.get(route) ?? {}
    const pocket = pockets.find((each) => pays(each, route))
    return sold?.ok && prompt && pocket ? [{ route, price: sold.price, prompt, pocket }] : []
  })
  const isTooLarge = candidates.length === 0 && ranked.skipped.some(({ reason }) => reason === 'prompt_too_large')
  const tokens = Math.min(...Array.from(facts.values(), ({ prompt }) => prompt.tokens))
  const cap = request.inputTokensPerCall
  const tooLarge = isTooLarge && cap !== undefined ? { tokens, cap } : undefined
  return { candidates, skipped: ranked.skipped, tooLarge }
}

/** What the catalog says of a route goes before what its provider's API is known to take. */
function extrasOn({ capabilities }: Route, extras: Extras | undefined): RouteFacts['extras'] {
  if (!extras) return undefined
  return {
    embeddings: extras.embeddings,
    choices: capabilities.choices && extras.choices,
    parameters: capabilities.parameters ?? extras.parameters,
  }
}

function needsOf({ body, onDelta }: CallRequest): RouteNeeds {
  if (isEmbedding(body)) {
    return { ...PLAIN_NEEDS, kind: 'embedding', parameters: body.user === undefined ? [] : ['user'] }
  }
  return {
    kind: 'chat',
    tools: (body.tools?.length ?? 0) > 0,
    jsonSchema: body.schema !== undefined,
    vision: imagesOf(body) > 0,
    streaming: onDelta !== undefined,
    choices: choicesIn(body) > 1,
    parameters: Object.keys(body.parameters ?? {}),
  }
}

/** Whether each route of a model has a pocket that pays it. */
export function payAll(pockets: readonly Pocket[], model: CatalogModel): boolean {
  return model.routes.every((route) => pockets.some((pocket) => pays(pocket, route)))
}

function pays(pocket: Pocket, { balanceClass, currency }: Route): boolean {
  return pocket.balanceClass === balanceClass && pocket.currency === currency
}
