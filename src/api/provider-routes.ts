import {
  PROVIDER_NAME,
  providerChangeSchema,
  providerListSchema,
  providerRequestSchema,
  providerSchema,
  secretListSchema,
  type ProviderChange,
  type ProviderView,
} from '#contracts/api-provider.ts'
import { onwardQuerySchema } from '#contracts/api-page.ts'
import { Problem } from '#contracts/codes.ts'
import { misplacedOptions, type ProviderSettings } from '#contracts/provider-settings.ts'
import { routesTo } from '#db/catalog-version.ts'
import {
  addProvider,
  MOST_PROVIDERS,
  changeProvider,
  findProvider,
  listProviders,
  lockProvider,
  removeProvider,
  type NotAdded,
  type StoredProvider,
} from '#db/provider.ts'
import { resetCircuitsOf } from '#db/route-health.ts'
import { secretCounts } from '#db/secret-turn.ts'
import { lockCatalog } from '#db/version.ts'
import type { Transaction } from 'kysely'
import type { Database } from '#db/schema.ts'
import { z } from 'zod'
import { callerOfRequest, notFound, tenantDb } from './access.ts'
import type { Api, FixedProvider, RouteDeps } from './api-deps.ts'
import { answerChange, answerPost } from './idempotency.ts'
import { pageAsked, pageFound } from './page.ts'
import { secretBoxOf } from './secrets-key.ts'
import { faulty, type Fault } from './validation.ts'

const tags = ['Providers']
const nameParams = z.object({ name: z.string() })
/** Routes that one refusal names. */
const MAX_NAMED = 50

/** Providers serve the installation, as the catalog does: operators of any organisation see them, those of the installation change them. */
export function providerRoutes(app: Api, deps: RouteDeps): void {
  const { fixedProviders } = deps
  const fixed = new Map(fixedProviders.map((provider) => [provider.name, provider]))
  readRoutes(app, deps, fixed)

  app.post(
    '/providers',
    {
      config: {
        access: 'operator',
        changesInstallation: true,
        versioned: 'provider',
        audit: 'provider.create',
        problems: ['already_exists', 'no_secrets_key', 'too_many'],
      },
      schema: {
        tags,
        summary: 'Add a provider',
        description: 'All processes can ask it within two seconds. Routes of the catalog name it.',
        body: providerRequestSchema,
        response: { 201: providerSchema },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: providerSchema }, async (trx) => {
        const { name } = request.body
        const box = secretBoxOf(deps)
        const added = fixed.has(name) ? 'already_exists' : await addProvider(trx, box, request.body)
        if (typeof added === 'string') throw notAdded(name, added)
        return { status: 201, body: storedView(added), audit: { target: name } }
      }),
  )

  changeRoutes(app, deps, fixed)
}

type Fixed = ReadonlyMap<string, FixedProvider>

function readRoutes(app: Api, { secrets }: RouteDeps, fixed: Fixed): void {
  app.get(
    '/providers',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'Providers by name, without their keys',
        querystring: onwardQuerySchema,
        response: { 200: providerListSchema },
      },
    },
    async (request) => {
      const stored = (await listProviders(tenantDb(request))).filter(({ name }) => !fixed.has(name)).map(storedView)
      const all = [...[...fixed.values()].map(fixedView), ...stored]
      const { limit, order, after } = pageAsked(request, (text) => text.length > 0)
      const byName = all.toSorted((a, b) => (a.name < b.name ? -1 : 1))
      const inOrder = order === 'asc' ? byName : byName.toReversed()
      const page = inOrder.filter(({ name }) => after === undefined || (order === 'asc' ? name > after : name < after))
      const { items, nextCursor } = pageFound(request, page.slice(0, limit), ({ name }) => name)
      return { providers: items, nextCursor }
    },
  )

  app.get(
    '/providers/:name',
    {
      config: { access: 'operator', versioned: 'provider' },
      schema: { tags, summary: 'A provider, without its key', params: nameParams, response: { 200: providerSchema } },
    },
    async (request) => {
      const { name } = request.params
      const own = fixed.get(name)
      if (own) return fixedView(own)
      const found = PROVIDER_NAME.test(name) ? await findProvider(tenantDb(request), name) : undefined
      if (!found) throw notFound('provider', name)
      return storedView(found)
    },
  )

  app.get(
    '/secrets',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'Which key encrypts how many secrets',
        description: 'Keys of providers and secrets of webhooks, of all tenants. No secret is answered.',
        response: { 200: secretListSchema },
      },
    },
    async (request) => ({
      encryptsWith: secrets?.now().keyId ?? null,
      secrets: [...(await secretCounts(tenantDb(request)))],
    }),
  )
}

function changeRoutes(app: Api, deps: RouteDeps, fixed: Fixed): void {
  app.patch(
    '/providers/:name',
    {
      config: {
        access: 'operator',
        changesInstallation: true,
        versioned: 'provider',
        audit: 'provider.change',
        problems: ['provider_fixed', 'no_secrets_key'],
      },
      schema: {
        tags,
        summary: 'Change a provider, or its key',
        description:
          'All processes know it within two seconds; requests that are on end as they began. A new key closes the ' +
          'circuits of its routes: the next call may try it.',
        params: nameParams,
        body: providerChangeSchema,
        response: { 200: providerSchema },
      },
    },
    (request, reply) =>
      answerChange({ request, reply }, async (trx) => {
        const { name } = request.params
        const before = await changeable(trx, fixed, name)
        const { apiKey } = request.body
        const key = apiKey === undefined ? undefined : { box: secretBoxOf(deps), apiKey }
        const body = storedView(await changeProvider(trx, changed(before, request.body), key))
        if (key) await resetCircuitsOf(trx, callerOfRequest(request), { provider: name, nowMs: deps.nowMs() })
        return { status: 200, body, audit: { target: name, before: storedView(before) } }
      }),
  )

  app.delete(
    '/providers/:name',
    {
      config: {
        access: 'operator',
        changesInstallation: true,
        versioned: 'provider',
        audit: 'provider.delete',
        problems: ['provider_fixed', 'provider_in_use'],
      },
      schema: {
        tags,
        summary: 'Delete a provider and its key',
        description: 'Refused while routes of the catalog in force name it. Requests that are on end as they began.',
        params: nameParams,
        response: { 204: z.undefined().describe('It is asked nothing more.') },
      },
    },
    (request, reply) =>
      answerChange({ request, reply }, async (trx) => {
        const { name } = request.params
        const before = await changeable(trx, fixed, name)
        // A catalog that is just put in force may name it.
        await lockCatalog(trx)
        const routes = await routesTo(trx, name)
        if (routes.length > 0) throw inUse(name, routes)
        await removeProvider(trx, name)
        return { status: 204, body: undefined, audit: { target: name, before: storedView(before) } }
      }),
  )
}

/** One that is stored, locked. @throws Problem for one of the environment, and for none */
async function changeable(trx: Transaction<Database>, fixed: Fixed, name: string): Promise<StoredProvider> {
  if (fixed.has(name)) {
    throw new Problem('provider_fixed', `The provider ${name} is configured in the environment.`, {
      remedy: 'Change PURSER_PROVIDERS of all API and worker processes, and start them again.',
    })
  }
  const found = PROVIDER_NAME.test(name) ? await lockProvider(trx, name) : undefined
  if (!found) throw notFound('provider', name)
  return found
}

/** @throws Problem when it would be sent elsewhere with the old key, or an option means nothing */
function changed(before: StoredProvider, change: ProviderChange): Omit<ProviderSettings, 'apiKey'> {
  const { name, kind, baseUrl, maxTokensField, promptCache } = before
  const settings = {
    name,
    kind: change.kind ?? kind,
    baseUrl: change.baseUrl ?? baseUrl,
    maxTokensField: change.maxTokensField === undefined ? maxTokensField : (change.maxTokensField ?? undefined),
    promptCache: change.promptCache === undefined ? promptCache : (change.promptCache ?? undefined),
  }
  const faults: Fault[] = misplacedOptions(settings).map(({ field, message }) => ({ path: field, message }))
  if (settings.baseUrl !== baseUrl && change.apiKey === undefined) {
    faults.push({ path: 'apiKey', message: 'is needed with another baseUrl: a stored key is sent nowhere else' })
  }
  if (faults.length === 0) return settings
  throw faulty(faults)
}

/** What was written of it is undone. */
function notAdded(name: string, why: NotAdded): Problem {
  return why === 'too_many'
    ? new Problem(why, `${MOST_PROVIDERS} providers are stored, and no more may be.`, {
        remedy: 'Delete one that no route names (DELETE /api/v1/providers/{name}), or change one with PATCH.',
      })
    : new Problem(why, `There is a provider ${name} already.`, {
        remedy: 'Change it with PATCH /api/v1/providers/{name}, or choose another name.',
      })
}

function inUse(name: string, routes: readonly string[]): Problem {
  const more = routes.length > MAX_NAMED ? `, and ${routes.length - MAX_NAMED} more` : ''
  return new Problem('provider_in_use', `Routes name it: ${routes.slice(0, MAX_NAMED).join(', ')}${more}.`, {
    remedy: `Put a catalog in force that does not name ${name} (PUT /api/v1/catalog), then delete it.`,
    extra: { routes: routes.slice(0, MAX_NAMED) },
  })
}

function fixedView({ name, kind, baseUrl, maxTokensField, promptCache, keyHint }: FixedProvider): ProviderView {
  const never = { keyChangedAt: null, encryptedBy: null, createdAt: null, changedAt: null }
  const options = { maxTokensField: maxTokensField ?? null, promptCache: promptCache ?? null }
  return { name, source: 'environment', kind, baseUrl, ...options, keyHint, ...never }
}

function storedView(provider: StoredProvider): ProviderView {
  const { name, kind, baseUrl, maxTokensField, promptCache, keyHint, encryptedBy } = provider
  return {
    name,
    source: 'stored',
    kind,
    baseUrl,
    maxTokensField: maxTokensField ?? null,
    promptCache: promptCache ?? null,
    keyHint,
    keyChangedAt: provider.keyChangedAt.toISOString(),
    encryptedBy,
    createdAt: provider.createdAt.toISOString(),
    changedAt: provider.changedAt.toISOString(),
    version: provider.version,
  }
}
