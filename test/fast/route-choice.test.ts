import { plainPrices, type Prices } from '#domain/pricing.ts'
import {
  drawOf,
  PLAIN_NEEDS,
  rankRoutes,
  SKIP_REASONS,
  type ModelOffer,
  type RouteBounds,
  type RouteFacts,
  type RouteNeeds,
  type RouteOffer,
  type SkipReason,
} from '#domain/route-choice.ts'
import fc from 'fast-check'
import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'

const prices: Prices = plainPrices({ inputNanoPerMillion: 1_000n, outputNanoPerMillion: 4_000n })
const needs: RouteNeeds = { ...PLAIN_NEEDS, kind: 'chat' }
const facts: RouteFacts = {
  hasProvider: true,
  hasPocket: true,
  prices,
  leastInputTokens: 0,
  mostInputTokens: 500,
}

function route(name: string, change: Partial<RouteOffer> = {}): RouteOffer {
  return {
    name,
    provider: 'p',
    balanceClass: 'direct',
    currency: 'USD',
    weight: 1,
    contextTokens: 1_000,
    capabilities: { tools: true, jsonSchema: true, vision: true, streaming: true },
    limits: {},
    ...change,
  }
}

function model(change: Partial<ModelOffer<RouteOffer>> = {}): ModelOffer<RouteOffer> {
  return { name: 'm', kind: 'chat', strategy: 'ordered', routes: [route('a'), route('b'), route('c')], ...change }
}

interface Case {
  readonly model?: Partial<ModelOffer<RouteOffer>>
  readonly route?: Partial<RouteOffer>
  readonly needs?: Partial<RouteNeeds>
  readonly bounds?: readonly RouteBounds[]
  readonly facts?: Partial<RouteFacts>
}

/** Why the one route of a model is skipped; undefined when it is a candidate. */
function reasonOf(change: Case): SkipReason | undefined {
  const ranked = rankRoutes(model({ routes: [route('a', change.route)], ...change.model }), {
    needs: { ...needs, ...change.needs },
    bounds: change.bounds ?? [],
    draw: 0,
    factsOf: () => ({ ...facts, ...change.facts }),
  })
  expect(ranked.candidates.length + ranked.skipped.length).toBe(1)
  return ranked.skipped[0]?.reason
}

const PLAIN = { embeddings: false, choices: false, parameters: ['user'] }
const none = { tools: false, jsonSchema: false, vision: false, streaming: false }
const dearWhenLong: Prices = {
  ...prices,
  tiers: [{ ...prices, aboveInputTokens: 400, inputNanoPerMillion: 9_000n }],
}

const skipped: readonly (readonly [SkipReason, string, Case])[] = [
  ['wrong_kind', 'an embedding model asked to chat', { model: { kind: 'embedding' } }],
  ['wrong_kind', 'a chat model asked to embed', { needs: { kind: 'embedding' } }],
  [
    'lacks_embeddings',
    'an embedding model at a provider without embeddings',
    { model: { kind: 'embedding' }, needs: { kind: 'embedding' }, facts: { extras: PLAIN } },
  ],
  ['model_not_allowed', 'a model that is not on the list', { bounds: [{ models: ['n'] }] }],
  ['model_not_allowed', 'an empty list', { bounds: [{ models: [] }] }],
  ['model_not_allowed', 'a model that only one of two lists has', { bounds: [{ models: ['m'] }, { models: ['n'] }] }],
  ['provider_not_allowed', 'a provider that is not on the list', { bounds: [{ providers: ['q'] }] }],
  [
    'balance_class_not_allowed',
    'direct money, where only credit may pay',
    { bounds: [{ balanceClasses: ['credit'] }] },
  ],
  ['lacks_tools', 'no tools', { route: { capabilities: none }, needs: { tools: true } }],
  ['lacks_json_schema', 'no JSON schema', { route: { capabilities: none }, needs: { jsonSchema: true } }],
  ['lacks_vision', 'no eyes', { route: { capabilities: none }, needs: { vision: true } }],
  ['lacks_streaming', 'no streams', { route: { capabilities: none }, needs: { streaming: true } }],
  ['lacks_choices', 'one answer only', { needs: { choices: true }, facts: { extras: PLAIN } }],
  ['lacks_parameter', 'no top_k', { needs: { parameters: ['user', 'top_k'] }, facts: { extras: PLAIN } }],
  ['context_too_small', 'a prompt that surely fills the context', { facts: { leastInputTokens: 1_000 } }],
  [
    'token_limit_too_small',
    'a prompt that may be more than a minute bears',
    { route: { limits: { tokensPerMinute: 100 } }, facts: { mostInputTokens: 100 } },
  ],
  [
    'prompt_too_large',
    'a prompt that may be longer than the run lets it be',
    { facts: { promptCap: 9, mostInputTokens: 10 } },
  ],
  ['no_price', 'no price', { facts: { prices: 'no_price' } }],
  ['no_quote', 'a price in another currency, and no rate', { facts: { prices: 'no_quote' } }],
  ['price_not_comparable', 'a bound in another currency', { bounds: [{ maxPrices: [{ currency: 'CNY' }] }] }],
  ['price_not_comparable', 'a bound in no currency at all', { bounds: [{ maxPrices: [] }] }],
  ['too_expensive', 'input', { bounds: [{ maxPrices: [{ currency: 'USD', inputNanoPerMillion: 999n }] }] }],
  ['too_expensive', 'output', { bounds: [{ maxPrices: [{ currency: 'USD', outputNanoPerMillion: 3_999n }] }] }],
  [
    'too_expensive',
    'input of a tier that the prompt may reach',
    { facts: { prices: dearWhenLong }, bounds: [{ maxPrices: [{ currency: 'USD', inputNanoPerMillion: 1_000n }] }] },
  ],
  [
    'too_expensive',
    'reasoning, which is output',
    {
      facts: { prices: { ...prices, reasoningNanoPerMillion: 5_000n } },
      bounds: [{ maxPrices: [{ currency: 'USD', outputNanoPerMillion: 4_000n }] }],
    },
  ],
  ['no_provider', 'no such provider here', { facts: { hasProvider: false } }],
  ['no_pocket', 'no pocket that pays it', { facts: { hasPocket: false } }],
]

test.each(skipped)('%s: %s', (reason, _, change) => {
  expect(reasonOf(change)).toBe(reason)
})

test('a route that does not take a member of the request is skipped with its name', () => {
  const { skipped: named } = rankRoutes(model({ routes: [route('a')] }), {
    needs: { ...needs, parameters: ['user', 'top_k', 'min_p'] },
    bounds: [],
    draw: 0,
    factsOf: () => ({ ...facts, extras: PLAIN }),
  })
  expect(named).toEqual([{ route: 'a', reason: 'lacks_parameter', parameter: 'top_k' }])
})

test('every reason to skip a route has a case above', () => {
  expect(new Set(skipped.map(([reason]) => reason))).toEqual(new Set(SKIP_REASONS))
})

test.each<[string, Case]>([
  ['nothing special', {}],
  ['what it has', { needs: { tools: true, jsonSchema: true, vision: true, streaming: true } }],
  [
    'more answers and a member that it takes',
    {
      needs: { choices: true, parameters: ['user'] },
      facts: { extras: { embeddings: true, choices: true, parameters: ['user'] } },
    },
  ],
  ['whatever is asked of a provider that is not known here', { needs: { choices: true, parameters: ['top_k'] } }],
  ['a prompt that only may be too long', { facts: { mostInputTokens: 1_000_000 } }],
  ['every bound kept', { bounds: [{ models: ['m'], providers: ['p'], balanceClasses: ['direct', 'credit'] }] }],
  [
    'a price at the bound exactly',
    { bounds: [{ maxPrices: [{ currency: 'USD', inputNanoPerMillion: 1_000n, outputNanoPerMillion: 4_000n }] }] },
  ],
  [
    'a tier that the prompt cannot reach',
    {
      facts: { prices: dearWhenLong, mostInputTokens: 400 },
      bounds: [{ maxPrices: [{ currency: 'USD', inputNanoPerMillion: 1_000n }] }],
    },
  ],
])('a route is a candidate for %s', (_, change) => {
  expect(reasonOf(change)).toBeUndefined()
})

test('an ordered model keeps the order of its routes', () => {
  const ranked = rankRoutes(model(), { needs, bounds: [], draw: 0.9, factsOf: () => facts })
  expect(ranked.candidates.map(({ name }) => name)).toEqual(['a', 'b', 'c'])
})

const weighted = model({
  strategy: 'weighted',
  routes: [route('a', { weight: 70 }), route('b', { weight: 20 }), route('c', { weight: 10 })],
})

function orderFor(callId: string, isOut: (name: string) => boolean = () => false): readonly string[] {
  const ranked = rankRoutes(weighted, {
    needs,
    bounds: [],
    draw: drawOf(callId),
    factsOf: ({ name }) => ({ ...facts, hasPocket: !isOut(name) }),
  })
  return ranked.candidates.map(({ name }) => name)
}

function callId(index: number): string {
  const hex = createHash('sha256').update(String(index)).digest('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join('-')
}

test('over many calls each route of a weighted model has its share, as the first and as the fallback', () => {
  const calls = 20_000
  const orders = Array.from({ length: calls }, (_, index) => orderFor(callId(index)))
  const shareOf = (isCounted: (order: readonly string[]) => boolean) => orders.filter(isCounted).length / calls
  expect(shareOf(([first]) => first === 'a')).toBeCloseTo(0.7, 1)
  expect(shareOf(([first]) => first === 'b')).toBeCloseTo(0.2, 1)
  expect(shareOf(([first]) => first === 'c')).toBeCloseTo(0.1, 1)
  const afterA = orders.filter(([first]) => first === 'a')
  expect(afterA.filter(([, second]) => second === 'b').length / afterA.length).toBeCloseTo(2 / 3, 1)
})

test('a route that cannot serve leaves the others in their order, and shares itself out among them', () => {
  const calls = 5_000
  let first = 0
  for (let index = 0; index < calls; index += 1) {
    const id = callId(index)
    const rest = orderFor(id, (name) => name === 'a')
    expect(rest).toEqual(orderFor(id).filter((name) => name !== 'a'))
    if (rest[0] === 'b') first += 1
  }
  expect(first / calls).toBeCloseTo(2 / 3, 1)
})

test('every order has every route once, whatever the draw and the weights', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 1_000 }), { minLength: 1, maxLength: 16 }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (weights, draw) => {
        const routes = weights.map((weight, index) => route(`r${index}`, { weight }))
        const pick = () =>
          rankRoutes(model({ strategy: 'weighted', routes }), { needs, bounds: [], draw, factsOf: () => facts })
        expect(pick().candidates.toSorted((a, b) => routes.indexOf(a) - routes.indexOf(b))).toEqual(routes)
        expect(pick()).toEqual(pick())
      },
    ),
  )
})

test('a draw is a number in [0, 1), the same for the same call', () => {
  expect(drawOf('00000000-0000-0000-0000-000000000000')).toBe(0)
  expect(drawOf('ffffffff-ffff-ffff-ffff-ffffffffffff')).toBeLessThan(1)
  expect(drawOf('01234567-89ab-8def-8123-456789abcdef')).toBe(drawOf('01234567-89ab-8def-8123-456789abcdef'))
})
