import { z } from 'zod'
import {
  catalogModelSchema,
  catalogShape,
  priceSchema,
  type Catalog,
  type CatalogModel,
  type CatalogPrice,
  type Route,
} from './catalog.ts'

/** Something about a catalog, with the place where it stands: `models.0.routes.1.limits`. */
export interface CatalogFault {
  readonly path: string
  readonly message: string
}

export type CheckedCatalog =
  | { readonly ok: true; readonly catalog: Catalog; readonly warnings: readonly CatalogFault[] }
  | { readonly ok: false; readonly problems: readonly CatalogFault[] }

/**
 * Looks at a catalog as a whole and names everything that is wrong with it, not only the first thing: also what does not
 * fit together in the parts that can be read while others cannot.
 */
export function checkCatalog(document: unknown): CheckedCatalog {
  const shape = catalogShape.safeParse(document)
  const parts = shape.success ? partsOf(shape.data) : readableParts(document)
  const problems = [...(shape.error?.issues ?? []).flatMap(shapeFaults), ...contradictions(parts)]
  if (!shape.success || problems.length > 0) return { ok: false, problems }
  return { ok: true, catalog: shape.data, warnings: oddities(parts) }
}

interface At<Value> {
  readonly path: string
  readonly value: Value
}

interface Parts {
  readonly models: readonly At<CatalogModel>[]
  readonly prices: readonly At<CatalogPrice>[]
}

function partsOf({ models, prices }: Catalog): Parts {
  return {
    models: models.map((value, index) => ({ path: `models.${index}`, value })),
    prices: prices.map((value, index) => ({ path: `prices.${index}`, value })),
  }
}

const looseCatalog = z
  .object({ models: z.array(z.unknown()).catch([]), prices: z.array(z.unknown()).catch([]) })
  .catch({ models: [], prices: [] })

function readableParts(document: unknown): Parts {
  const { models, prices } = looseCatalog.parse(document)
  return { models: readable('models', models, catalogModelSchema), prices: readable('prices', prices, priceSchema) }
}

function readable<Schema extends z.ZodType>(
  list: string,
  values: readonly unknown[],
  schema: Schema,
): readonly At<z.output<Schema>>[] {
  return values.flatMap((each, index) => {
    const parsed = schema.safeParse(each)
    return parsed.success ? [{ path: `${list}.${index}`, value: parsed.data }] : []
  })
}

function shapeFaults(issue: z.core.$ZodIssue): readonly CatalogFault[] {
  const path = issue.path.join('.')
  if (issue.code !== 'unrecognized_keys') return [{ path, message: issue.message }]
  return issue.keys.map((key) => ({ path: [...issue.path, key].join('.'), message: 'is not known here' }))
}

function contradictions({ models, prices }: Parts): readonly CatalogFault[] {
  const routes = models.flatMap(routesOf)
  return [
    ...twice(models.map(({ path, value }) => ({ path, value: `the model ${value.name}` }))),
    ...models.flatMap((model) =>
      twice(routesOf(model).map(({ path, value }) => ({ path, value: `the route ${value.name}` }))),
    ),
    ...twice(prices.map(({ path, value }) => ({ path, value: `the price of ${priceName(value)}` }))),
    ...routes.flatMap(routeFaults),
    ...differences(routes),
  ]
}

function routesOf({ path, value }: At<CatalogModel>): readonly At<Route>[] {
  return value.routes.map((route, index) => ({ path: `${path}.routes.${index}`, value: route }))
}

function twice(names: readonly At<string>[]): readonly CatalogFault[] {
  const seen = new Set<string>()
  return names.flatMap(({ path, value }) => {
    const isKnown = seen.has(value)
    seen.add(value)
    return isKnown ? [{ path, message: `${value} stands twice` }] : []
  })
}

function priceName({ provider, upstreamModel, currency, effectiveAt }: CatalogPrice): string {
  return `${provider} ${upstreamModel} in ${currency}${effectiveAt === undefined ? '' : ` from ${effectiveAt}`}`
}

function routeFaults({ path, value: route }: At<Route>): readonly CatalogFault[] {
  const { contextTokens, maxOutputTokens, timeoutMs, firstByteTimeoutMs = 0, limits } = route
  const faults: CatalogFault[] = []
  if (maxOutputTokens > contextTokens) {
    faults.push({ path: `${path}.maxOutputTokens`, message: `is more than contextTokens, ${contextTokens}` })
  }
  if (firstByteTimeoutMs > timeoutMs) {
    faults.push({ path: `${path}.firstByteTimeoutMs`, message: `is more than timeoutMs, ${timeoutMs}` })
  }
  if (maxOutputTokens >= (limits.tokensPerMinute ?? Infinity)) {
    const message = `is not more than maxOutputTokens, ${maxOutputTokens}: an attempt that may use all of them never fits`
    faults.push({ path: `${path}.limits.tokensPerMinute`, message })
  }
  if (route.costCurrency === route.currency) {
    faults.push({ path: `${path}.costCurrency`, message: `is the currency itself, ${route.currency}: leave it out` })
  }
  return faults
}

/** What is a fact of the upstream model, and of our account there, is the same whichever route leads to it. */
function differences(routes: readonly At<Route>[]): readonly CatalogFault[] {
  return Array.from(firstsOf(routes)).flatMap(([route, first]) =>
    (['limits', 'tokenizer'] as const)
      .filter((fact) => textOf(route.value[fact]) !== textOf(first.value[fact]))
      .map((fact) => ({
        path: `${route.path}.${fact}`,
        message: `differs from that of ${first.path}, which leads to the same upstream model`,
      })),
  )
}

/** For each route the first one to the same upstream model, when it is another one. */
function firstsOf(routes: readonly At<Route>[]): ReadonlyMap<At<Route>, At<Route>> {
  const byUpstream = new Map<string, At<Route>>()
  const firsts = new Map<At<Route>, At<Route>>()
  for (const route of routes) {
    const name = `${route.value.provider} ${route.value.upstreamModel}`
    const first = byUpstream.get(name)
    if (first) firsts.set(route, first)
    else byUpstream.set(name, route)
  }
  return firsts
}

/** The same for the same facts, in whatever order they were written. */
function textOf(fact: Route['limits'] | Route['capabilities'] | string | undefined): string {
  return JSON.stringify(
    typeof fact === 'object' ? Object.entries(fact).toSorted(([a], [b]) => (a < b ? -1 : 1)) : (fact ?? null),
  )
}

/** What may be meant, and probably is not. */
function oddities({ models }: Parts): readonly CatalogFault[] {
  const routes = models.flatMap(routesOf)
  return [
    ...models
      .filter(({ value }) => value.strategy === 'ordered')
      .flatMap(routesOf)
      .filter(({ value }) => value.weight !== 1)
      .map(({ path }) => ({ path: `${path}.weight`, message: 'counts in a weighted model only' })),
    ...models
      .filter(({ value }) => value.strategy === 'weighted' && value.routes.length === 1)
      .map(({ path }) => ({ path: `${path}.strategy`, message: 'is weighted, and there is one route only' })),
    ...Array.from(firstsOf(routes))
      .filter(([route, first]) => textOf(route.value.capabilities) !== textOf(first.value.capabilities))
      .map(([{ path }]) => ({
        path: `${path}.capabilities`,
        message: 'differ from those of another route to the same upstream model',
      })),
  ]
}
