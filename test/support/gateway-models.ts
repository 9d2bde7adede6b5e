import type { CatalogDocument } from '#contracts/catalog.ts'

type Model = CatalogDocument['models'][number]
type Route = Model['routes'][number]

/** One route each, which shows what the model's name says. */
export const gatewayCatalog: CatalogDocument = {
  models: [
    modelOn('steady', { capabilities: { vision: true } }),
    modelOn('counted', { tokenizer: 'o200k_base' }),
    modelOn('seldom', { limits: { requestsPerMinute: 1 } }),
    modelOn('thinker', { upstreamModel: 'sandbox-thinker', capabilities: { reasoning: true } }),
    modelOn('cut', { upstreamModel: 'sandbox-steady:cut-3' }),
    modelOn('long', { upstreamModel: 'sandbox-steady:context' }),
    modelOn('short', { tokenizer: 'o200k_base', contextTokens: 10 }),
    modelOn('filtered', { upstreamModel: 'sandbox-steady:filter' }),
    modelOn('paced', { upstreamModel: 'sandbox-steady:pace-200' }),
  ],
  prices: ['steady', 'steady:cut-3', 'steady:context', 'steady:filter', 'steady:pace-200', 'thinker'].map((name) => ({
    provider: 'sandbox',
    upstreamModel: `sandbox-${name}`,
    currency: 'USD',
    input: '0.40',
    output: '1.60',
  })),
}

function modelOn(name: string, route: Partial<Route>): Model {
  return {
    name,
    routes: [
      {
        name,
        provider: 'sandbox',
        upstreamModel: 'sandbox-steady',
        balanceClass: 'direct',
        currency: 'USD',
        contextTokens: 128_000,
        maxOutputTokens: 4_096,
        timeoutMs: 120_000,
        ...route,
      },
    ],
  }
}
