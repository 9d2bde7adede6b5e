import { checkCatalog } from '#contracts/catalog-check.ts'
import type { CatalogDocument, CatalogRoute } from '#contracts/catalog.ts'
import { sandboxCatalog } from '#local/catalog.ts'
import { testCatalog } from '#test/support/world.ts'
import fc from 'fast-check'
import { expect, test } from 'vitest'

const good: CatalogRoute = {
  name: 'a',
  provider: 'p',
  upstreamModel: 'u',
  balanceClass: 'direct',
  currency: 'USD',
  contextTokens: 1_000,
  maxOutputTokens: 500,
  timeoutMs: 1_000,
}

const price = { provider: 'p', upstreamModel: 'u', currency: 'USD', input: '1', output: '2' }

function catalog(routes: readonly object[], change: object = {}): unknown {
  return { models: [{ name: 'm', routes }], prices: [price], ...change }
}

function problemsOf(document: unknown): readonly string[] {
  const checked = checkCatalog(document)
  return checked.ok ? [] : checked.problems.map(({ path, message }) => `${path}: ${message}`)
}

function warningsOf(document: unknown): readonly string[] {
  const checked = checkCatalog(document)
  if (!checked.ok) throw new Error(JSON.stringify(checked.problems))
  return checked.warnings.map(({ path, message }) => `${path}: ${message}`)
}

test('the catalogs of the local stack and of the tests are without a fault', () => {
  for (const document of [sandboxCatalog, testCatalog, catalog([good])]) {
    expect([problemsOf(document), warningsOf(document)]).toEqual([[], []])
  }
})

test.each<[string, unknown, string]>([
  [
    'a model',
    {
      models: [
        { name: 'm', routes: [good] },
        { name: 'm', routes: [good] },
      ],
      prices: [],
    },
    'models.1: the model m stands twice',
  ],
  [
    'a parameter that has a price of its own',
    catalog([{ ...good, capabilities: { parameters: ['top_k', 'web_search_options'] } }]),
    'models.0.routes.0.capabilities.parameters.1: is set by Purser itself, or changes what a request costs',
  ],
  ['a route', catalog([good, good]), 'models.0.routes.1: the route a stands twice'],
  ['a price', catalog([good], { prices: [price, price] }), 'prices.1: the price of p u in USD stands twice'],
  [
    'more output than context',
    catalog([{ ...good, maxOutputTokens: 1_001 }]),
    'models.0.routes.0.maxOutputTokens: is more than contextTokens, 1000',
  ],
  [
    'a first byte after the last',
    catalog([{ ...good, firstByteTimeoutMs: 1_001 }]),
    'models.0.routes.0.firstByteTimeoutMs: is more than timeoutMs, 1000',
  ],
  [
    'a limit that no attempt fits',
    catalog([{ ...good, limits: { tokensPerMinute: 500 } }]),
    'models.0.routes.0.limits.tokensPerMinute: is not more than maxOutputTokens, 500: an attempt that may use all of them never fits',
  ],
  [
    'two limits of one account',
    catalog([
      { ...good, limits: { concurrency: 4 } },
      { ...good, name: 'b', limits: { concurrency: 5 } },
    ]),
    'models.0.routes.1.limits: differs from that of models.0.routes.0, which leads to the same upstream model',
  ],
  [
    'two tokenisers of one model',
    catalog([good, { ...good, name: 'b', tokenizer: 'o200k_base' }]),
    'models.0.routes.1.tokenizer: differs from that of models.0.routes.0, which leads to the same upstream model',
  ],
  [
    'a cost in the currency itself',
    catalog([{ ...good, costCurrency: 'USD' }]),
    'models.0.routes.0.costCurrency: is the currency itself, USD: leave it out',
  ],
])('%s is a fault, and the only one', (_, document, problem) => {
  expect(problemsOf(document)).toEqual([problem])
})

test('all problems are named at once, those of the whole beside those of the parts', () => {
  const problems = problemsOf({
    models: [
      { name: 'm', routes: [good, good] },
      { name: 'm', routes: [{ ...good, maxOutputTokens: 5_000 }] },
      { name: 'bad name', routes: [{ ...good, weight: 0, speed: 'high' }] },
      'none',
    ],
    prices: [{ ...price, input: '0.0000000001' }, price, price],
    extra: true,
  })
  for (const part of [
    'models.0.routes.1: the route a stands twice',
    'models.1: the model m stands twice',
    'models.1.routes.0.maxOutputTokens: is more than contextTokens',
    'models.2.name: letters, digits',
    'models.2.routes.0.weight: ',
    'models.2.routes.0.speed: is not known here',
    'models.3: ',
    'prices.0.input: a decimal string',
    'prices.2: the price of p u in USD stands twice',
    'extra: is not known here',
  ]) {
    expect(
      problems.some((problem) => problem.startsWith(part)),
      part,
    ).toBe(true)
  }
})

test('the same facts in another order are the same', () => {
  const limits = { requestsPerMinute: 1, concurrency: 2 }
  const turned = { concurrency: 2, requestsPerMinute: 1 }
  expect(
    problemsOf(
      catalog([
        { ...good, limits },
        { ...good, name: 'b', limits: turned },
      ]),
    ),
  ).toEqual([])
})

test('what is probably not meant is a warning', () => {
  const odd: CatalogDocument = {
    models: [
      { name: 'm', routes: [{ ...good, weight: 3 }] },
      { name: 'n', strategy: 'weighted', routes: [{ ...good, capabilities: { vision: true } }] },
    ],
    prices: [],
  }
  expect(warningsOf(odd)).toEqual([
    'models.0.routes.0.weight: counts in a weighted model only',
    'models.1.strategy: is weighted, and there is one route only',
    'models.1.routes.0.capabilities: differ from those of another route to the same upstream model',
  ])
})

test('whatever is sent, it is refused with a reason or it is a catalog', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.json().map((text): unknown => JSON.parse(text)),
        fc.anything(),
      ),
      (document) => {
        const checked = checkCatalog(document)
        expect(checked.ok || checked.problems.length > 0).toBe(true)
      },
    ),
  )
})

test('a catalog of the largest size is looked at in a moment', () => {
  const models = Array.from({ length: 500 }, (_, model) => ({
    name: `m${model}`,
    routes: Array.from({ length: 16 }, (__, route) => ({
      ...good,
      name: `r${route}`,
      upstreamModel: `u${model}-${route}`,
    })),
  }))
  const startMs = performance.now()
  expect(problemsOf({ models, prices: [] })).toEqual([])
  expect(performance.now() - startMs).toBeLessThan(2_000)
})
