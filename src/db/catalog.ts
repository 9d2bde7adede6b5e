import { catalogSchema, type Catalog, type CatalogDocument } from '#contracts/catalog.ts'
import { Problem } from '#contracts/codes.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import { sha256 } from './ids.ts'
import { json } from './json.ts'
import { importPrices } from './price.ts'
import type { Database } from './schema.ts'
import { lockCatalog } from './version.ts'

export interface CatalogVersion {
  readonly version: number
  readonly catalog: Catalog
}

/** Makes `catalog` the newest version, with its prices, unless it is the newest already. Returns the version in force. */
export async function importCatalog(db: Kysely<Database>, document: CatalogDocument): Promise<number> {
  const { version } = await db.transaction().execute((trx) => storeCatalog(trx, document))
  return version
}

/** The same, with the version that was in force before. */
export async function storeCatalog(
  trx: Transaction<Database>,
  document: CatalogDocument,
): Promise<{ readonly version: number; readonly before: number | undefined }> {
  const catalog = catalogSchema.parse(document)
  const digest = sha256(json(catalog))
  await lockCatalog(trx)
  const newest = await trx.selectFrom('catalog').selectAll().orderBy('version', 'desc').limit(1).executeTakeFirst()
  const before = newest?.version
  if (newest && Buffer.compare(newest.digest, digest) === 0) return { version: newest.version, before }
  await importPrices(trx, catalog.prices)
  const { rows } = await sql<{ version: number }>`
    select add_catalog(${digest}, ${json(catalog)}::jsonb) as version`.execute(trx)
  const [row] = rows
  if (!row) throw new Error('a catalog that was stored has no version')
  return { version: row.version, before }
}

export async function newestCatalog(db: Kysely<Database>): Promise<CatalogVersion> {
  const row = await db.selectFrom('catalog').selectAll().orderBy('version', 'desc').limit(1).executeTakeFirst()
  if (!row)
    throw new Problem('unknown_model', 'no catalog has been imported', {
      remedy: 'Import one with purser catalog import, or set PURSER_CATALOG and start again.',
    })
  return { version: row.version, catalog: catalogSchema.parse(row.document) }
}

/** Only its number: whoever keeps the newest one asks this before reading it again. */
export async function newestVersion(db: Kysely<Database>): Promise<number | undefined> {
  const row = await db.selectFrom('catalog').select('version').orderBy('version', 'desc').limit(1).executeTakeFirst()
  return row?.version
}

export async function catalogAt(db: Kysely<Database>, version: number): Promise<Catalog> {
  const row = await db.selectFrom('catalog').select('document').where('version', '=', version).executeTakeFirstOrThrow()
  return catalogSchema.parse(row.document)
}
