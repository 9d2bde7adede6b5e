import type { Page } from '#contracts/api-page.ts'
import { catalogSchema, type Catalog } from '#contracts/catalog.ts'
import { sql, type Kysely } from 'kysely'
import { pageBy } from './page.ts'
import type { Database } from './schema.ts'

/** A version of the catalog without its document. */
export interface VersionSummary {
  readonly version: number
  readonly createdAt: Date
  readonly models: number
  readonly prices: number
}

/** A place is a version. */
export async function listCatalogVersions(db: Kysely<Database>, page: Page): Promise<readonly VersionSummary[]> {
  const { follows, order } = pageBy(sql`version`, page)
  const { rows } = await sql<VersionSummary>`
    select version, created_at as "createdAt", jsonb_array_length(document->'models') as models,
      jsonb_array_length(document->'prices') as prices
    from catalog where ${follows}
    order by ${order} limit ${page.limit}`.execute(db)
  return rows
}

/** A version with its document; the newest one when none is named. */
export async function findCatalog(
  db: Kysely<Database>,
  version: number | undefined,
): Promise<{ readonly version: number; readonly createdAt: Date; readonly catalog: Catalog } | undefined> {
  const row = await db
    .selectFrom('catalog')
    .select(['version', 'created_at', 'document'])
    .$if(version !== undefined, (query) => query.where('version', '=', version ?? 0))
    .orderBy('version', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row && { version: row.version, createdAt: row.created_at, catalog: catalogSchema.parse(row.document) }
}

/** Routes of the catalog in force that lead to a provider: `model › route`. */
export async function routesTo(db: Kysely<Database>, provider: string): Promise<readonly string[]> {
  const newest = await findCatalog(db, undefined)
  return (newest?.catalog.models ?? []).flatMap(({ name, routes }) =>
    routes.flatMap((route) => (route.provider === provider ? [`${name} › ${route.name}`] : [])),
  )
}
