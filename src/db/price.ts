import type { Page } from '#contracts/api-page.ts'
import type { CatalogPrice } from '#contracts/catalog.ts'
import { pricesOf } from '#contracts/price.ts'
import { pricesFromStored, storedPrices } from '#contracts/stored.ts'
import { changesBetween, type PriceChange } from '#domain/price-list.ts'
import type { Prices, TokenPrices } from '#domain/pricing.ts'
import { sql, type Kysely } from 'kysely'
import { deriveId } from './ids.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'
import { pageBy } from './page.ts'

/** What a price is of: the same model may be billed in several currencies. */
export interface PriceKey {
  readonly provider: string
  readonly upstreamModel: string
  readonly currency: string
}

/** A row of the price book: immutable, so its id pins what an attempt was held and charged at. */
export interface Price {
  readonly id: string
  readonly prices: Prices
}

export interface BookedPrice extends PriceKey, Price {
  readonly effectiveAt: Date
  readonly isInForce: boolean
}

/** The price in force now, or undefined: no price, no call. */
export async function priceInForce(db: Kysely<Database>, key: PriceKey): Promise<Price | undefined> {
  const { rows } = await sql<Stored>`
    select p.id, prices_of(p) as prices from price p
    where p.provider = ${key.provider} and p.upstream_model = ${key.upstreamModel} and p.currency = ${key.currency}
      and p.effective_at <= clock_timestamp()
    order by p.effective_at desc, p.made_in desc limit 1`.execute(db)
  const [row] = rows
  return row && { id: row.id, prices: pricesFromStored(row.prices) }
}

interface Stored {
  readonly id: string
  readonly prices: unknown
}

/** Prices in force, and those that come into force later; a place is an id. */
export async function listPrices(
  db: Kysely<Database>,
  { provider, page }: { readonly provider: string | undefined; readonly page: Page },
): Promise<readonly BookedPrice[]> {
  const { follows, order } = pageBy(sql`p.id`, page)
  const { rows } = await sql<Omit<BookedPrice, 'prices'> & Stored>`
    with moment as (select clock_timestamp() as now)
    select p.id, p.provider, p.upstream_model as "upstreamModel", p.currency, prices_of(p) as prices,
      p.effective_at as "effectiveAt", p.effective_at <= moment.now as "isInForce"
    from moment, price p
    where ${follows}
      and p.provider = coalesce(${provider ?? null}, p.provider) and (p.effective_at > moment.now or not exists (
        select from price n where (n.provider, n.upstream_model, n.currency) = (p.provider, p.upstream_model, p.currency)
          and n.effective_at <= moment.now and (n.effective_at, n.made_in) > (p.effective_at, p.made_in)))
    order by ${order} limit ${page.limit}`.execute(db)
  return rows.map((row) => ({ ...row, prices: pricesFromStored(row.prices) }))
}

/** What a price list changes of one price. */
export interface ListedChange extends PriceKey {
  /** Null: from now on. */
  readonly effectiveAt: string | null
  /** Every component of a new price; of a changed one those that differ. */
  readonly changes: readonly PriceChange[]
}

export interface ListComparison {
  readonly added: readonly ListedChange[]
  readonly changed: readonly ListedChange[]
  readonly unchanged: number
}

/** What a price list would change, and the rows that would do it: one for each price that is not in force just so. */
export async function comparePrices(
  db: Kysely<Database>,
  list: readonly CatalogPrice[],
): Promise<ListComparison & { readonly rows: readonly object[] }> {
  const known = await knownPrices(db, list)
  const rows: object[] = []
  const added: ListedChange[] = []
  const changed: ListedChange[] = []
  for (const [index, listed] of list.entries()) {
    const wanted = pricesOf(listed)
    const before = known.get(index)
    const changes = changesBetween(before?.prices ?? NO_PRICES, wanted)
    if (before && changes.length === 0) continue
    rows.push(rowOf(listed, { wanted, before }))
    const { provider, upstreamModel, currency, effectiveAt = null } = listed
    const change = { provider, upstreamModel, currency, effectiveAt }
    if (before) changed.push({ ...change, changes })
    else added.push({ ...change, changes: changes.map((each) => ({ ...each, from: null })) })
  }
  return { added, changed, unchanged: list.length - rows.length, rows }
}

/** Adds a row for each price that differs from the one in force. Nothing that is booked is priced again. */
export async function importPrices(trx: Kysely<Database>, list: readonly CatalogPrice[]): Promise<ListComparison> {
  const { rows, ...comparison } = await comparePrices(trx, list)
  if (rows.length > 0)
    await sql`select count(add_price(p)) from jsonb_array_elements(${json(rows)}::jsonb) p`.execute(trx)
  return comparison
}

/** Time bits of ids that do not belong to a run. */
const PRICE_ANCHOR = '00000000-0000-0000-0000-000000000000'

const NO_TOKEN_PRICES: TokenPrices = Object.freeze({
  inputNanoPerMillion: 0n,
  cachedInputNanoPerMillion: 0n,
  cacheWriteNanoPerMillion: 0n,
  outputNanoPerMillion: 0n,
  reasoningNanoPerMillion: 0n,
})

const NO_PRICES: Prices = Object.freeze({
  ...NO_TOKEN_PRICES,
  perCallNano: 0n,
  perImageNano: 0n,
  toolFeesNano: {},
  tiers: [],
})

/** The prices that are in force when those of a list come into force, by their place in it. */
async function knownPrices(db: Kysely<Database>, list: readonly CatalogPrice[]): Promise<ReadonlyMap<number, Price>> {
  const asked = list.map(({ provider, upstreamModel, currency, effectiveAt }, place) => ({
    place,
    provider,
    upstream_model: upstreamModel,
    currency,
    effective_at: effectiveAt,
  }))
  const { rows } = await sql<Stored & { readonly place: number }>`
    select i.place, k.id, k.prices
    from jsonb_to_recordset(${json(asked)}::jsonb)
      as i(place integer, provider text, upstream_model text, currency text, effective_at timestamptz)
    cross join lateral (
      select p.id, prices_of(p) as prices from price p
      where p.provider = i.provider and p.upstream_model = i.upstream_model and p.currency = i.currency
        and p.effective_at <= greatest(i.effective_at, clock_timestamp())
      order by p.effective_at desc, p.made_in desc limit 1
    ) k`.execute(db)
  return new Map(rows.map(({ place, id, prices }) => [place, { id, prices: pricesFromStored(prices) }]))
}

/** A price that comes back is a new row with a new id, and so is one that comes at another time. */
function rowOf(
  listed: CatalogPrice,
  { wanted, before }: { readonly wanted: Prices; readonly before: Price | undefined },
): object {
  const { provider, upstreamModel, currency, effectiveAt } = listed
  const parts = [provider, upstreamModel, currency, json(storedPrices(wanted)), before?.id ?? '']
  const more = extrasOf(wanted)
  return {
    id: deriveId(PRICE_ANCHOR, ...parts, ...(effectiveAt === undefined ? [] : [effectiveAt])),
    provider,
    upstream_model: upstreamModel,
    currency,
    input_nano_per_million: wanted.inputNanoPerMillion,
    cached_input_nano_per_million: wanted.cachedInputNanoPerMillion,
    output_nano_per_million: wanted.outputNanoPerMillion,
    per_call_nano: wanted.perCallNano,
    effective_at: effectiveAt,
    ...(Object.keys(more).length > 0 && { more }),
  }
}

/** What stands in no column of its own. */
function extrasOf(prices: Prices): Readonly<Record<string, unknown>> {
  const {
    inputNanoPerMillion: _input,
    cachedInputNanoPerMillion: _cached,
    outputNanoPerMillion: _output,
    perCallNano: _perCall,
    ...more
  } = storedPrices(prices)
  return more
}
