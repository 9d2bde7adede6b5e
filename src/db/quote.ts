import type { Page } from '#contracts/api-page.ts'
import { sql, type Kysely } from 'kysely'
import { newId } from './ids.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'
import { pageBy, within, type Period } from './page.ts'

/** `sell` nano of one currency buy `buy` nano of the other. */
export interface Rate {
  readonly sellCurrency: string
  readonly sell: bigint
  readonly buyCurrency: string
  readonly buy: bigint
}

export interface Quote extends Rate {
  readonly id: string
  /** Where the rate is from, in the words of who stored it. */
  readonly source: string
  readonly effectiveAt: Date
  readonly expiresAt: Date | null
}

export interface NewQuote extends Rate {
  readonly source: string
  /** Null, or a time that has passed: at once. */
  readonly effectiveAt: Date | null
  readonly expiresAt: Date | null
  readonly nowMs: number
}

/** An organisation's rate, from now on or from a later time on; the newest that has begun and not expired is in force. */
export async function createQuote(db: Kysely<Database>, organisationId: string, quote: NewQuote): Promise<Quote> {
  const row = {
    id: newId(quote.nowMs),
    organisation_id: organisationId,
    sell_currency: quote.sellCurrency,
    buy_currency: quote.buyCurrency,
    sell: quote.sell,
    buy: quote.buy,
    source: quote.source,
    effective_at: quote.effectiveAt,
    expires_at: quote.expiresAt,
  }
  const { rows } = await sql<Quote>`
    select id, sell_currency as "sellCurrency", sell, buy_currency as "buyCurrency", buy, source,
      effective_at as "effectiveAt", expires_at as "expiresAt"
    from add_quote(${json(row)}::jsonb)`.execute(db)
  const [stored] = rows
  if (!stored) throw new Error('a quote that was stored is not there')
  return stored
}

/** Whose rate it is: an organisation's, or that of a project's organisation. */
export type QuoteOwner = { readonly projectId: string } | { readonly organisationId: string }

/** The rate now: the newest that has begun and not expired, as fundings use it. Undefined: there is none. */
export async function quoteInForce(
  db: Kysely<Database>,
  owner: QuoteOwner,
  pair: { readonly sellCurrency: string; readonly buyCurrency: string },
): Promise<{ readonly id: string; readonly sell: bigint; readonly buy: bigint } | undefined> {
  const organisation =
    'projectId' in owner
      ? sql`(select organisation_id from project where id = ${owner.projectId})`
      : owner.organisationId
  const { rows } = await sql<{ id: string; sell: bigint; buy: bigint }>`
    select id, sell, buy from quote
    where organisation_id = ${organisation} and sell_currency = ${pair.sellCurrency}
      and buy_currency = ${pair.buyCurrency} and effective_at <= clock_timestamp()
      and coalesce(expires_at, 'infinity') > clock_timestamp()
    order by effective_at desc, id desc limit 1`.execute(db)
  return rows[0]
}

/** A place is an id, a period one of when quotes come into force. */
export async function listQuotes(
  db: Kysely<Database>,
  organisationId: string,
  page: Page & Period,
): Promise<readonly Quote[]> {
  const query = db
    .selectFrom('quote')
    .select(COLUMNS)
    .where('organisation_id', '=', organisationId)
    .where(pageBy(sql.ref('id'), page).follows)
    .where(within(sql.ref('effective_at'), page))
  return query.orderBy('id', page.order).limit(page.limit).execute()
}

const COLUMNS = [
  'id',
  'sell_currency as sellCurrency',
  'sell',
  'buy_currency as buyCurrency',
  'buy',
  'source',
  'effective_at as effectiveAt',
  'expires_at as expiresAt',
] as const
