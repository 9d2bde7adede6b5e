import { catalogSchema, type Catalog, type CatalogDocument, type CatalogPrice } from '#contracts/catalog.ts'
import { Problem } from '#contracts/codes.ts'
import { storedPrices } from '#contracts/stored.ts'
import { parseDecimal } from '#domain/money.ts'
import { plainPrices, type Prices } from '#domain/pricing.ts'
import { sql, type Kysely } from 'kysely'
import { deriveId, sha256 } from './ids.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'

export interface CatalogVersion {
  readonly version: number
  readonly catalog: Catalog
}

/** A row of the price book: immutable, so its id pins what an attempt was held and charged at. */
export interface Price {
  readonly id: string
  readonly prices: Prices
}

/** Time bits of ids that do not belong to a run. */
const PRICE_ANCHOR = '00000000-0000-0000-0000-000000000000'

/** Makes `catalog` the newest version, with its prices, unless it is the newest already. Returns the version in force. */
export async function importCatalog(db: Kysely<Database>, document: CatalogDocument): Promise<number> {
  const catalog = catalogSchema.parse(document)
  const digest = sha256(json(catalog))
  return db.transaction().execute(async (trx) => {
    const newest = await trx.selectFrom('catalog').selectAll().orderBy('version', 'desc').limit(1).executeTakeFirst()
    if (newest && Buffer.compare(newest.digest, digest) === 0) return newest.version
    for (const price of catalog.prices) await importPrice(trx, price)
    const { rows } = await sql<{ version: number }>`
      select add_catalog(${digest}, ${json(catalog)}::jsonb) as version`.execute(trx)
    const [row] = rows
    if (!row) throw new Error('a catalog that was stored has no version')
    return row.version
  })
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

/** The price in force now, or undefined: no price, no call. */
export async function priceInForce(
  db: Kysely<Database>,
  key: { readonly provider: string; readonly upstreamModel: string; readonly currency: string },
): Promise<Price | undefined> {
  const row = await db
    .selectFrom('price')
    .selectAll()
    .where('provider', '=', key.provider)
    .where('upstream_model', '=', key.upstreamModel)
    .where('currency', '=', key.currency)
    .where('effective_at', '<=', (eb) => eb.fn<Date>('clock_timestamp'))
    .orderBy('effective_at', 'desc')
    .limit(1)
    .executeTakeFirst()
  if (!row) return undefined
  return {
    id: row.id,
    prices: plainPrices({
      inputNanoPerMillion: row.input_nano_per_million,
      cachedInputNanoPerMillion: row.cached_input_nano_per_million,
      outputNanoPerMillion: row.output_nano_per_million,
      perCallNano: row.per_call_nano,
    }),
  }
}

/** Adds a row when this price differs from the one in force; a price that comes back is a new row with a new id. */
async function importPrice(trx: Kysely<Database>, price: CatalogPrice): Promise<void> {
  const wanted = plainPrices({
    inputNanoPerMillion: nanoOf(price.input),
    cachedInputNanoPerMillion: nanoOf(price.cachedInput ?? price.input),
    outputNanoPerMillion: nanoOf(price.output),
    perCallNano: nanoOf(price.perCall ?? '0'),
  })
  const known = await priceInForce(trx, price)
  if (known && json(storedPrices(known.prices)) === json(storedPrices(wanted))) return
  const row = {
    id: deriveId(
      PRICE_ANCHOR,
      price.provider,
      price.upstreamModel,
      price.currency,
      json(storedPrices(wanted)),
      known?.id ?? '',
    ),
    provider: price.provider,
    upstream_model: price.upstreamModel,
    currency: price.currency,
    input_nano_per_million: wanted.inputNanoPerMillion,
    cached_input_nano_per_million: wanted.cachedInputNanoPerMillion,
    output_nano_per_million: wanted.outputNanoPerMillion,
    per_call_nano: wanted.perCallNano,
  }
  await sql`select add_price(${json(row)}::jsonb)`.execute(trx)
}

function nanoOf(text: string): bigint {
  const parsed = parseDecimal(text)
  if (!parsed.ok) throw new Problem('invalid_amount', `${text} is not a price`)
  return parsed.nano
}
