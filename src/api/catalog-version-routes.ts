import {
  catalogImportSchema,
  catalogVersionListSchema,
  catalogVersionSchema,
  type CatalogVersionView,
} from '#contracts/api-catalog.ts'
import { pageQuerySchema } from '#contracts/api-page.ts'
import { checkCatalog, type CatalogFault } from '#contracts/catalog-check.ts'
import { catalogShape, type Catalog } from '#contracts/catalog.ts'
import { Problem } from '#contracts/codes.ts'
import { storeCatalog } from '#db/catalog.ts'
import { priceInForce } from '#db/price.ts'
import { listProviders } from '#db/provider.ts'
import { findCatalog, listCatalogVersions } from '#db/catalog-version.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'
import { z } from 'zod'
import { notFound, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerChange } from './idempotency.ts'
import { isNumber, pageAsked, pageFound } from './page.ts'

const tags = ['Catalog']

/** Five hundred models with sixteen routes each, and their prices. */
const BODY_LIMIT_BYTES = 8 * 1024 * 1024
/** Most faults, and most warnings, that one answer names. */
const MAX_FAULTS = 200

const { $schema: _, ...documented } = z.toJSONSchema(catalogShape, { io: 'input' })
/** Described as it is, and read by `checkCatalog`, which names all problems at once. */
const catalogBody = z.unknown().meta(documented)

export function catalogVersionRoutes(app: Api, { fixedProviders }: RouteDeps): void {
  app.put(
    '/catalog',
    {
      bodyLimit: BODY_LIMIT_BYTES,
      config: {
        access: 'operator',
        changesInstallation: true,
        versioned: 'catalog',
        audit: 'catalog.import',
        problems: ['invalid_request', 'payload_too_large', 'unsupported_media_type'],
      },
      schema: {
        tags,
        summary: 'Put a catalog in force',
        description:
          'Checked as a whole; the answer to one that is wrong names everything that is. The same document again is ' +
          'the same version. Calls that are on keep the version that they began with.',
        body: catalogBody,
        response: { 200: catalogImportSchema },
      },
    },
    async (request, reply) => {
      const db = tenantDb(request)
      const checked = checkCatalog(request.body)
      if (!checked.ok) throw invalidCatalog(checked.problems)
      const { version } = await answerChange({ request, reply }, async (trx) => {
        const stored = await storeCatalog(trx, checked.catalog)
        const before = stored.before === undefined ? null : { version: stored.before }
        const body = { version: stored.version }
        return { status: 200, body, audit: { target: String(stored.version), before } }
      })
      const known = [...fixedProviders, ...(await listProviders(db))].map(({ name }) => name)
      const warnings = [...checked.warnings, ...(await absences(db, checked.catalog, known))]
      return { version, warnings: warnings.slice(0, MAX_FAULTS) }
    },
  )

  catalogReadRoutes(app)
}

function catalogReadRoutes(app: Api): void {
  app.get(
    '/catalog',
    {
      config: { access: 'operator', versioned: 'catalog', problems: ['not_found'] },
      schema: { tags, summary: 'The catalog in force', response: { 200: catalogVersionSchema } },
    },
    (request) => theCatalog(tenantDb(request), undefined),
  )

  app.get(
    '/catalog/versions',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'Versions of the catalog, newest first',
        querystring: pageQuerySchema,
        response: { 200: catalogVersionListSchema },
      },
    },
    async (request) => {
      const db = tenantDb(request)
      const found = await listCatalogVersions(db, pageAsked(request, isNumber))
      const { items, nextCursor } = pageFound(request, found, ({ version }) => String(version))
      return {
        versions: items.map(({ createdAt, ...rest }) => ({ ...rest, createdAt: createdAt.toISOString() })),
        nextCursor,
      }
    },
  )

  app.get(
    '/catalog/versions/:version',
    {
      config: { access: 'operator', problems: ['invalid_request'] },
      schema: {
        tags,
        summary: 'A version of the catalog',
        params: z.object({ version: z.coerce.number().int().min(1).max(2_147_483_647) }),
        response: { 200: catalogVersionSchema },
      },
    },
    (request) => theCatalog(tenantDb(request), request.params.version),
  )
}

async function theCatalog(db: Kysely<Database>, version: number | undefined): Promise<CatalogVersionView> {
  const found = await findCatalog(db, version)
  if (!found) throw notFound('catalog', version === undefined ? 'yet' : `version ${version}`)
  return { ...found, createdAt: found.createdAt.toISOString() }
}

function invalidCatalog(problems: readonly CatalogFault[]): Problem {
  const errors = problems.slice(0, MAX_FAULTS)
  const more = problems.length > errors.length ? `; and ${problems.length - errors.length} more` : ''
  const detail = errors.map(({ path, message }) => (path === '' ? message : `${path}: ${message}`)).join('; ')
  return new Problem('invalid_request', `The catalog is not valid: ${detail}${more}`, {
    remedy: 'Mend the document; purser catalog check FILE says the same without sending it.',
    extra: { errors },
  })
}

/** What the catalog names and this installation does not have: such routes are skipped. */
async function absences(
  db: Kysely<Database>,
  catalog: Catalog,
  providerNames: readonly string[],
): Promise<readonly CatalogFault[]> {
  const warnings: CatalogFault[] = []
  const priced = new Map<string, boolean>()
  for (const [index, model] of catalog.models.entries()) {
    for (const [place, route] of model.routes.entries()) {
      const { provider, upstreamModel } = route
      const path = `models.${index}.routes.${place}`
      if (providerNames.length > 0 && !providerNames.includes(provider)) {
        warnings.push({ path: `${path}.provider`, message: `${provider} is no provider that is configured here` })
      }
      const currency = route.costCurrency ?? route.currency
      const name = `${provider} ${upstreamModel} ${currency}`
      const isPriced = priced.get(name) ?? (await priceInForce(db, { provider, upstreamModel, currency })) !== undefined
      priced.set(name, isPriced)
      if (!isPriced) warnings.push({ path, message: `has no price in ${currency}: no call is made` })
    }
  }
  return warnings
}
