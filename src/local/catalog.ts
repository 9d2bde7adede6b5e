import type { CatalogDocument, CatalogRoute } from '#contracts/catalog.ts'

/** The catalog model that the demo and `purser run` ask for. */
const MODEL = 'research'
const CURRENCY = 'USD'

const limits = { contextTokens: 128_000, maxOutputTokens: 4_096, timeoutMs: 120_000 } as const

/**
 * The local stack's catalog for the sandbox provider: credit first, then a route that is always busy, then one that
 * works. Prices are what the sandbox says it bills; they are written here once more because buyer and seller are two
 * parties, and `verify` compares what each of them counted.
 */
export const sandboxCatalog: CatalogDocument = {
  models: [
    {
      name: MODEL,
      routes: [
        sandboxRoute({ name: 'economy', balanceClass: 'credit' }),
        sandboxRoute({ name: 'busy', balanceClass: 'direct' }),
        sandboxRoute({ name: 'steady', balanceClass: 'direct' }),
      ],
    },
    { name: 'steady', routes: [sandboxRoute({ name: 'steady', balanceClass: 'direct' })] },
  ],
  prices: [
    { provider: 'sandbox', upstreamModel: 'sandbox-economy', currency: CURRENCY, input: '0.10', output: '0.40' },
    { provider: 'sandbox', upstreamModel: 'sandbox-busy', currency: CURRENCY, input: '0.15', output: '0.60' },
    { provider: 'sandbox', upstreamModel: 'sandbox-steady', currency: CURRENCY, input: '0.40', output: '1.60' },
  ],
}

function sandboxRoute({ name, balanceClass }: Pick<CatalogRoute, 'name' | 'balanceClass'>): CatalogRoute {
  return { name, provider: 'sandbox', upstreamModel: `sandbox-${name}`, balanceClass, currency: CURRENCY, ...limits }
}

/** The same model name on one upstream model, payable from both balances. Prices in USD per 1,000,000 tokens. */
export function singleModelCatalog(upstream: {
  readonly provider: string
  readonly upstreamModel: string
  readonly input: string
  readonly output: string
}): CatalogDocument {
  const { provider, upstreamModel, input, output } = upstream
  const tokenizer = provider === 'openai' ? tokenizerOf(upstreamModel) : undefined
  const route = (balanceClass: CatalogRoute['balanceClass']): CatalogRoute => ({
    name: balanceClass,
    provider,
    upstreamModel,
    balanceClass,
    currency: CURRENCY,
    ...(tokenizer && { tokenizer }),
    ...limits,
  })
  return {
    models: [{ name: MODEL, routes: [route('credit'), route('direct')] }],
    prices: [{ provider, upstreamModel, currency: CURRENCY, input, output }],
  }
}

/** OpenAI's own models by their names; of others nothing is known, and their prompts are bounded by bytes. */
function tokenizerOf(upstreamModel: string): CatalogRoute['tokenizer'] {
  if (/^(gpt-4o|gpt-4\.1|gpt-5|o[1-9])/.test(upstreamModel)) return 'o200k_base'
  return /^gpt-(4|3\.5)/.test(upstreamModel) ? 'cl100k_base' : undefined
}
