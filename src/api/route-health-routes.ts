import {
  routeListSchema,
  routeResetRequestSchema,
  routeResetSchema,
  type RouteHealthView,
} from '#contracts/api-route.ts'
import type { Catalog, Route } from '#contracts/catalog.ts'
import { newestCatalog } from '#db/catalog.ts'
import { newId } from '#db/ids.ts'
import { runsInstallation } from '#db/organisation.ts'
import { healthOf, resetRoute, type RouteHealth } from '#db/route-health.ts'
import type { RouteKey } from '#db/route-turn.ts'
import { callerOfRequest, notFound, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerPost } from './idempotency.ts'

const tags = ['Routes']

export function routeHealthRoutes(app: Api, { nowMs }: RouteDeps): void {
  app.get(
    '/routes',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'Circuits, limits and distrust of the routes',
        description: 'One entry for each upstream model of the newest catalog, as all processes share it.',
        response: { 200: routeListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const { version, catalog } = await newestCatalog(db)
      const upstreams = upstreamsOf(catalog)
      const found = await healthOf(
        db,
        upstreams.map(({ key }) => key),
      )
      // A provider's words may quote what another organisation asked.
      const isOurs = await runsInstallation(db, callerOfRequest(request).organisationId)
      const told = found.map((health) => (isOurs ? health : { ...health, lastMessage: null }))
      return { catalogVersion: version, routes: told.map((health, index) => healthView(health, upstreams[index])) }
    },
  )

  app.post(
    '/routes/reset',
    {
      config: { access: 'operator', changesInstallation: true, audit: 'route.reset', problems: ['not_found'] },
      schema: {
        tags,
        summary: 'Close a circuit, or trust a route again',
        description: 'For who knows that the reason is gone. It is written down who did it.',
        body: routeResetRequestSchema,
        response: { 200: routeResetSchema },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: routeResetSchema }, async (trx) => {
        const { provider, upstreamModel, what } = request.body
        const key = { provider, upstreamModel }
        const { catalog } = await newestCatalog(trx)
        const isChanged = await resetRoute(trx, callerOfRequest(request), { ...key, id: newId(nowMs()), what })
        const upstream = upstreamsOf(catalog).find((each) => isSame(each.key, key))
        const [health] = await healthOf(trx, [key])
        if (!health || (!upstream && !isChanged)) throw notFound('route to', `${provider} ${upstreamModel}`)
        const body = { isChanged, route: healthView(health, upstream) }
        return { status: 200, body, audit: { target: `${provider} ${upstreamModel}`, after: { what, ...body } } }
      }),
  )
}

/** What routes of a catalog lead to, with the tightest of their limits: an older catalog may say different ones. */
interface Upstream {
  readonly key: RouteKey
  readonly routes: readonly string[]
  readonly limits: Route['limits']
}

function upstreamsOf(catalog: Catalog): readonly Upstream[] {
  const upstreams = new Map<string, Upstream>()
  for (const model of catalog.models) {
    for (const route of model.routes) {
      const { provider, upstreamModel, limits } = route
      const name = `${provider} ${upstreamModel}`
      const known = upstreams.get(name)
      upstreams.set(name, {
        key: { provider, upstreamModel },
        routes: [...(known?.routes ?? []), `${model.name} › ${route.name}`],
        limits: tightest(known?.limits ?? {}, limits),
      })
    }
  }
  return [...upstreams.values()]
}

function tightest(a: Route['limits'], b: Route['limits']): Route['limits'] {
  const least = (name: keyof Route['limits']) => {
    const limit = Math.min(a[name] ?? Infinity, b[name] ?? Infinity)
    return limit === Infinity ? undefined : limit
  }
  return {
    requestsPerMinute: least('requestsPerMinute'),
    tokensPerMinute: least('tokensPerMinute'),
    concurrency: least('concurrency'),
  }
}

function isSame(a: RouteKey, b: RouteKey): boolean {
  return a.provider === b.provider && a.upstreamModel === b.upstreamModel
}

function healthView(health: RouteHealth, upstream: Upstream | undefined): RouteHealthView {
  const { circuit, lastOutcome, lastMessage, lastFailedAt, distrustPpm, distrustedAt, reset } = health
  const limits = upstream?.limits ?? {}
  const isOpen = circuit === 'open' || circuit === 'half_open'
  const until = isOpen ? health.openUntil : circuit === 'paused' ? health.pausedUntil : null
  const room = (limit: number | undefined, used: number, leased: number) =>
    limit === undefined ? null : { limit, used, leased }
  return {
    provider: health.provider,
    upstreamModel: health.upstreamModel,
    routes: [...(upstream?.routes ?? [])],
    circuit: {
      state: circuit,
      since: isOpen ? (health.openedAt?.toISOString() ?? null) : null,
      until: until?.toISOString() ?? null,
      failures: health.failures,
    },
    lastFailure:
      lastOutcome && lastFailedAt
        ? { outcome: lastOutcome, message: lastMessage, at: lastFailedAt.toISOString() }
        : null,
    room: {
      requestsPerMinute: room(limits.requestsPerMinute, health.requestsUsed, health.requestsLeased),
      tokensPerMinute: room(limits.tokensPerMinute, health.tokensUsed, health.tokensLeased),
      concurrency: room(limits.concurrency, health.slots, 0),
    },
    distrust: distrustedAt && { factor: factorOf(distrustPpm), since: distrustedAt.toISOString() },
    lastReset: reset,
  }
}

/** @example 501_000 is '1.501000' */
function factorOf(distrustPpm: number): string {
  return (1 + distrustPpm / 1_000_000).toFixed(6)
}
