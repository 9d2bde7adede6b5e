import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

/** Movements of one read: some tenths of a second, so that no snapshot is held for long. */
const MOVEMENTS_PER_READ = 50_000

interface Fold {
  readonly posted: bigint
  readonly held: bigint
}

interface FoldRequest {
  readonly accountId: string
  readonly kind: string
  readonly currency: string
  readonly at: string
  /** With what a sale brought above its cost, which is the seller's to know: else providers have all that was paid. */
  readonly audience: Audience
}

/** Who asks: a customer sees what was paid, an operator also what of it providers bill. */
export type Audience = 'customer' | 'operator'

/**
 * What a counterparty had as of an instant: no row is kept for it, so its movements are folded. What providers got is
 * read envelope by envelope, because no index leads from their account to its movements: it would make every call dearer.
 */
export async function foldCounterparty(db: Kysely<Database>, scope: Scope, request: FoldRequest): Promise<Fold> {
  if (request.kind !== 'provider_cost') return foldFew(db, scope, request)
  const paid = await foldEnvelopes(db, scope, request)
  const margins = request.audience === 'operator' ? await foldMargins(db, request) : 0n
  return { posted: paid.posted + margins, held: paid.held }
}

/** They name no envelope: an account's own index leads to them. */
async function foldMargins(db: Kysely<Database>, { accountId, at }: FoldRequest): Promise<bigint> {
  const { rows } = await sql<{ readonly posted: bigint }>`
    select coalesce(sum(x.amount), 0)::bigint as posted from (
      select -t.amount as amount from transfer t
      where t.debit_account = ${accountId} and t.recorded_at <= ${at}::timestamptz and t.code in ('margin', 'cost_exchange')
        and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve')
      union all
      select t.amount from transfer t
      where t.credit_account = ${accountId} and t.recorded_at <= ${at}::timestamptz
        and t.code in ('margin', 'cost_exchange') and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve')
    ) x`.execute(db)
  return rows[0]?.posted ?? 0n
}

/** Accounts that calls do not touch, debts included: their movements are as few as deposits, fundings and overages. */
async function foldFew(db: Kysely<Database>, scope: Scope, request: FoldRequest): Promise<Fold> {
  const { accountId, currency, at } = request
  const isTold = request.audience === 'operator' ? sql`true` : sql`t.code not in ('margin', 'cost_exchange')`
  const { rows } = await sql<{ readonly posted: bigint }>`
    select coalesce(sum(x.amount), 0)::bigint as posted from (
      select sum(-t.amount) as amount from transfer t
      where t.debit_account = ${accountId} and t.recorded_at <= ${at}::timestamptz
        and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve') and ${isTold}
      union all
      select sum(t.amount) from transfer t
      where t.credit_account = ${accountId} and t.recorded_at <= ${at}::timestamptz
        and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve') and ${isTold}
      union all
      select sum(case when t.credit_account = ${accountId} then t.amount else -t.amount end) from transfer t
      where t.project_id = ${scope.projectId} and t.currency = ${currency} and t.code = 'overage'
        and t.code in ('overage', 'debt_payment', 'correction')
        and ${accountId} in (t.debit_account, t.credit_account) and t.recorded_at <= ${at}::timestamptz
    ) x`.execute(db)
  return { posted: rows[0]?.posted ?? 0n, held: 0n }
}

/** Envelopes of one read. */
const ENVELOPES_PER_READ = 1_000

async function foldEnvelopes(db: Kysely<Database>, scope: Scope, request: FoldRequest): Promise<Fold> {
  const { rows: envelopes } = await sql<{ readonly id: string }>`
    select id from envelope where project_id = ${scope.projectId} order by id`.execute(db)
  const sum = { posted: 0n, held: 0n }
  for (let start = 0; start < envelopes.length; start += ENVELOPES_PER_READ) {
    const ids = envelopes.slice(start, start + ENVELOPES_PER_READ).map(({ id }) => id)
    let place: Place | undefined = START
    while (place) {
      const page: Page = await foldPage(db, { ...request, ids, place })
      sum.posted += page.posted
      sum.held += page.held
      place = page.rows === BigInt(MOVEMENTS_PER_READ) ? { envelopeId: page.envelopeId, seq: page.seq } : undefined
    }
  }
  return sum
}

/** A place in the order (envelope, seq). */
interface Place {
  readonly envelopeId: string | null
  readonly seq: bigint | null
}

interface Page extends Fold, Place {
  readonly rows: bigint
}

const START: Place = Object.freeze({ envelopeId: '00000000-0000-0000-0000-000000000000', seq: 0n })

async function foldPage(
  db: Kysely<Database>,
  request: FoldRequest & { readonly ids: readonly string[]; readonly place: Place },
): Promise<Page> {
  const { accountId, at, ids, place } = request
  const { rows } = await sql<Page>`
    with page as materialized (
      select t.envelope_id, t.seq, t.code, t.amount, t.released, t.credit_account = ${accountId} as is_income,
        ${accountId} in (t.debit_account, t.credit_account) and t.recorded_at <= ${at}::timestamptz as counts
      from transfer t
      where t.envelope_id = any(${ids}::uuid[]) and (t.envelope_id, t.seq) > (${place.envelopeId}::uuid, ${place.seq})
      order by t.envelope_id, t.seq limit ${MOVEMENTS_PER_READ}
    )
    select count(*) as rows, (array_agg(envelope_id order by envelope_id desc))[1] as "envelopeId",
      (array_agg(seq order by envelope_id desc, seq desc))[1] as seq,
      coalesce(sum(case when code in ('hold', 'void', 'expire') then 0 when is_income then amount else -amount end)
        filter (where counts), 0)::bigint as posted,
      coalesce(sum(case when code = 'hold' then amount else -released end) filter (where counts), 0)::bigint as held
    from page`.execute(db)
  const [page] = rows
  if (!page) throw new Error('a sum has a row')
  return page
}
