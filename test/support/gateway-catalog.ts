import type { CatalogDocument, CatalogRoute } from '#contracts/catalog.ts'

interface RouteWish extends Partial<CatalogRoute> {
  readonly upstreamModel: string
}

/** A catalog of the sandbox's models, each with routes that are called as their upstream models; all at one price. */
export function gatewayCatalog(
  models: Readonly<Record<string, readonly RouteWish[] | { readonly embeds: RouteWish }>>,
): CatalogDocument {
  const all = Object.entries(models).map(([name, routes]) =>
    'embeds' in routes
      ? { name, kind: 'embedding' as const, routes: [routeOf(routes.embeds)] }
      : { name, routes: routes.map(routeOf) },
  )
  const sold = new Map(
    all.flatMap(({ routes }) => routes).map((route) => [`${route.provider} ${route.upstreamModel}`, route]),
  )
  return {
    models: all,
    prices: Array.from(sold.values(), ({ provider, upstreamModel }) => ({
      provider,
      upstreamModel,
      currency: 'USD',
      input: upstreamModel === 'sandbox-embed' ? '0.02' : '0.40',
      output: upstreamModel === 'sandbox-embed' ? '0' : '1.60',
    })),
  }
}

function routeOf(wish: RouteWish): CatalogRoute {
  return {
    name: wish.upstreamModel.replaceAll(':', '-'),
    provider: 'sandbox',
    balanceClass: 'direct',
    currency: 'USD',
    contextTokens: 128_000,
    maxOutputTokens: 4_096,
    timeoutMs: 120_000,
    ...wish,
  }
}

/** The same model, spoken to as Anthropic's. */
export const CLAUDE: RouteWish = Object.freeze({
  name: 'claude',
  provider: 'sandbox-anthropic',
  upstreamModel: 'sandbox-steady',
})
