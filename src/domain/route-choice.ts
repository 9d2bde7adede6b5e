import { invariant } from './invariant.ts'
import type { Nano } from './money.ts'
import { highestOf, type Prices } from './pricing.ts'

/** What a route offers, as far as the choice depends on it. */
export interface RouteOffer {
  readonly name: string
  readonly provider: string
  readonly balanceClass: string
  /** What the wallet pays in. */
  readonly currency: string
  readonly weight: number
  readonly contextTokens: number
  readonly capabilities: {
    readonly tools: boolean
    readonly jsonSchema: boolean
    readonly vision: boolean
    readonly streaming: boolean
  }
  readonly limits: { readonly tokensPerMinute?: number | undefined }
}

export interface ModelOffer<Route extends RouteOffer> {
  readonly name: string
  readonly kind: 'chat' | 'embedding'
  readonly strategy: 'ordered' | 'weighted'
  readonly routes: readonly Route[]
}

/** What a request needs of a route. */
export interface RouteNeeds {
  readonly kind: 'chat' | 'embedding'
  readonly tools: boolean
  readonly jsonSchema: boolean
  readonly vision: boolean
  /** The caller wants the answer piece by piece. */
  readonly streaming: boolean
  /** Several answers to one prompt. */
  readonly choices: boolean
  /** Further members of the request, by name. */
  readonly parameters: readonly string[]
}

/** What a route takes beyond what any chat can ask for. */
interface RouteExtras {
  readonly embeddings: boolean
  readonly choices: boolean
  readonly parameters: readonly string[]
}

/** A request that needs nothing but a model that answers. */
export const PLAIN_NEEDS: Omit<RouteNeeds, 'kind'> = Object.freeze({
  tools: false,
  jsonSchema: false,
  vision: false,
  streaming: false,
  choices: false,
  parameters: [],
})

/** What is known of one route for one request. */
export interface RouteFacts {
  readonly hasProvider: boolean
  readonly hasPocket: boolean
  /** Undefined where that is not known. */
  readonly extras?: RouteExtras | undefined
  /** What the wallet pays, or why that is not known. */
  readonly prices: Prices | 'no_price' | 'no_quote'
  /** Tokens that the prompt surely has, as that route counts: 0 when only an upper bound is known. */
  readonly leastInputTokens: number
  /** Tokens that the prompt may have. */
  readonly mostInputTokens: number
  /** The longest prompt that its run lets a call have. */
  readonly promptCap?: number | undefined
}

/** What a run or a key may use. What is left out is not bound; an empty list allows nothing. */
export interface RouteBounds {
  readonly models?: readonly string[] | undefined
  readonly providers?: readonly string[] | undefined
  readonly balanceClasses?: readonly string[] | undefined
  /** By currency; a route that is sold in none of them cannot be compared, and is not used. */
  readonly maxPrices?: readonly MaxPrice[] | undefined
}

/** In nano per 1 000 000 tokens. */
export interface MaxPrice {
  readonly currency: string
  readonly inputNanoPerMillion?: Nano | undefined
  readonly outputNanoPerMillion?: Nano | undefined
}

export const SKIP_REASONS = Object.freeze([
  'wrong_kind',
  'lacks_embeddings',
  'model_not_allowed',
  'provider_not_allowed',
  'balance_class_not_allowed',
  'lacks_tools',
  'lacks_json_schema',
  'lacks_vision',
  'lacks_streaming',
  'lacks_choices',
  'lacks_parameter',
  'context_too_small',
  'token_limit_too_small',
  'prompt_too_large',
  'no_price',
  'no_quote',
  'price_not_comparable',
  'too_expensive',
  'no_provider',
  'no_pocket',
] as const)

/** Why a route is no candidate: the first of the list that is true of it. */
export type SkipReason = (typeof SKIP_REASONS)[number]

export interface RankedRoutes<Route> {
  /** Best first. */
  readonly candidates: readonly Route[]
  readonly skipped: readonly SkippedRoute[]
}

export interface SkippedRoute {
  readonly route: string
  readonly reason: SkipReason
  /** The first member of the request that the route does not take, when that is the reason. */
  readonly parameter?: string
}

/**
 * Sorts the routes of a model into those that can serve a request, best first, and those that cannot, each with the
 * reason. The same request and draw give the same order, whatever is skipped: every pass of a call, in every process.
 */
export function rankRoutes<Route extends RouteOffer>(
  model: ModelOffer<Route>,
  request: {
    readonly needs: RouteNeeds
    /** All of them must be kept: those of the key, and those of the run. */
    readonly bounds: readonly RouteBounds[]
    /** In [0, 1), see `drawOf`; it decides among the routes of a weighted model. */
    readonly draw: number
    readonly factsOf: (route: Route) => RouteFacts
  },
): RankedRoutes<Route> {
  const { needs, bounds, draw, factsOf } = request
  const candidates: Route[] = []
  const skipped: SkippedRoute[] = []
  for (const route of model.strategy === 'weighted' ? shuffled(model.routes, draw) : model.routes) {
    const facts = factsOf(route)
    const reason = firstReason(model, { route, needs, bounds, facts })
    const parameter = reason === 'lacks_parameter' ? lackedParameter(needs, facts) : undefined
    if (reason === undefined) candidates.push(route)
    else skipped.push({ route: route.name, reason, ...(parameter !== undefined && { parameter }) })
  }
  return { candidates, skipped }
}

interface Examined {
  readonly route: RouteOffer
  readonly needs: RouteNeeds
  readonly bounds: readonly RouteBounds[]
  readonly facts: RouteFacts
}

function firstReason(model: ModelOffer<RouteOffer>, examined: Examined): SkipReason | undefined {
  const { route, needs, bounds, facts } = examined
  const { capabilities, limits } = route
  const tests: Readonly<Record<SkipReason, () => boolean>> = {
    wrong_kind: () => model.kind !== needs.kind,
    lacks_embeddings: () => needs.kind === 'embedding' && facts.extras?.embeddings === false,
    model_not_allowed: () => bounds.some(({ models }) => models?.includes(model.name) === false),
    provider_not_allowed: () => bounds.some(({ providers }) => providers?.includes(route.provider) === false),
    balance_class_not_allowed: () =>
      bounds.some(({ balanceClasses }) => balanceClasses?.includes(route.balanceClass) === false),
    lacks_tools: () => needs.tools && !capabilities.tools,
    lacks_json_schema: () => needs.jsonSchema && !capabilities.jsonSchema,
    lacks_vision: () => needs.vision && !capabilities.vision,
    lacks_streaming: () => needs.streaming && !capabilities.streaming,
    lacks_choices: () => needs.choices && facts.extras?.choices === false,
    lacks_parameter: () => lackedParameter(needs, facts) !== undefined,
    // An upper bound alone refuses nothing: the provider counts, and refuses unbilled what is too long for it.
    context_too_small: () => facts.leastInputTokens >= route.contextTokens,
    // Limits hold for what is taken of them, which is the worst case.
    token_limit_too_small: () => facts.mostInputTokens >= (limits.tokensPerMinute ?? Infinity),
    prompt_too_large: () => facts.mostInputTokens > (facts.promptCap ?? Infinity),
    no_price: () => facts.prices === 'no_price',
    no_quote: () => facts.prices === 'no_quote',
    price_not_comparable: () => bounds.some(({ maxPrices }) => maxPrices && !maxPriceFor(route, maxPrices)),
    too_expensive: () => bounds.some(({ maxPrices }) => maxPrices && isAbove(facts, maxPriceFor(route, maxPrices))),
    no_provider: () => !facts.hasProvider,
    no_pocket: () => !facts.hasPocket,
  }
  return SKIP_REASONS.find((reason) => tests[reason]())
}

function lackedParameter({ parameters }: RouteNeeds, { extras }: RouteFacts): string | undefined {
  return extras && parameters.find((name) => !extras.parameters.includes(name))
}

function maxPriceFor(route: RouteOffer, maxPrices: readonly MaxPrice[]): MaxPrice | undefined {
  return maxPrices.find(({ currency }) => currency === route.currency)
}

/** Compared with the dearest of the kinds and tiers that the request can reach, as its hold is. */
function isAbove({ prices, mostInputTokens }: RouteFacts, most: MaxPrice | undefined): boolean {
  if (typeof prices === 'string' || !most) return false
  const { input, output } = highestOf(prices, mostInputTokens)
  const { inputNanoPerMillion, outputNanoPerMillion } = most
  return (
    (inputNanoPerMillion !== undefined && input > inputNanoPerMillion) ||
    (outputNanoPerMillion !== undefined && output > outputNanoPerMillion)
  )
}

/**
 * A weighted shuffle from one number: each place is drawn by the weights of the routes that are left. What of the number
 * a draw has not used decides the next one.
 */
function shuffled<Route extends RouteOffer>(routes: readonly Route[], draw: number): readonly Route[] {
  invariant(draw >= 0 && draw < 1, `${draw} is no draw`)
  const left = [...routes]
  const order: Route[] = []
  let rest = draw
  while (left.length > 0) {
    const total = left.reduce((sum, { weight }) => sum + weight, 0)
    let point = rest * total
    const index = left.findIndex(({ weight }) => {
      if (point < weight) return true
      point -= weight
      return false
    })
    // Rounding can step over the last one.
    const [route] = left.splice(index < 0 ? left.length - 1 : index, 1)
    invariant(route, 'a route was drawn')
    order.push(route)
    rest = Math.min(Math.max(0, point / route.weight), 1 - Number.EPSILON)
  }
  return order
}

/** Hexadecimal digits of an id that make a draw: 52 bits, all that a number in [0, 1) holds exactly. */
const DRAW_DIGITS = 13

/** A number in [0, 1) of a call's id, whose last digits are those of a digest: as good as drawn, and always the same. */
export function drawOf(callId: string): number {
  const digits = callId.replaceAll('-', '').slice(-DRAW_DIGITS)
  invariant(/^[\da-f]{13}$/i.test(digits), `${callId} is no id`)
  return Number.parseInt(digits, 16) / 16 ** DRAW_DIGITS
}
