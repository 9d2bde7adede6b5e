import type { BookedAttempt } from '#domain/invoice-comparison.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import { newId, sha256 } from './ids.ts'
import type { Database } from './schema.ts'

/** A provider's bill of a period, as it was sent to one organisation. */
export interface NewInvoice {
  readonly organisationId: string
  readonly provider: string
  readonly document: string
  /** Up to, and without `to`. */
  readonly from: Date
  readonly to: Date
  readonly apiKeyId: string
  readonly nowMs: number
}

export interface StoredInvoice {
  readonly id: string
  readonly digest: string
  /** When the same document was stored before; null: it is new. */
  readonly knownSince: Date | null
}

/** Keeps an invoice with its digest. The same document of the same provider is kept once. */
export async function storeInvoice(trx: Transaction<Database>, invoice: NewInvoice): Promise<StoredInvoice> {
  const digest = sha256(invoice.document)
  const made = await trx
    .insertInto('invoice')
    .values({
      id: newId(invoice.nowMs),
      organisation_id: invoice.organisationId,
      provider: invoice.provider,
      digest,
      document: invoice.document,
      period_from: invoice.from,
      period_to: invoice.to,
      api_key_id: invoice.apiKeyId,
    })
    .onConflict((conflict) => conflict.columns(['organisation_id', 'provider', 'digest']).doNothing())
    .returning('id')
    .executeTakeFirst()
  if (made) return { id: made.id, digest: digest.toString('hex'), knownSince: null }
  const known = await trx
    .selectFrom('invoice')
    .select(['id', 'recorded_at'])
    .where('organisation_id', '=', invoice.organisationId)
    .where('provider', '=', invoice.provider)
    .where('digest', '=', digest)
    .executeTakeFirstOrThrow()
  return { id: known.id, digest: digest.toString('hex'), knownSince: known.recorded_at }
}

/** Attempts of one read, each with its movements. */
const PAGE = 5_000
/** A request near midnight may be on the invoice of the day before or after. */
const SLACK = '1 day'

/** Attempts that went to a provider in a period, or about it, with what they cost by the journal. In batches. */
export async function* attemptsOfProvider(
  db: Kysely<Database>,
  request: Pick<NewInvoice, 'organisationId' | 'provider' | 'from' | 'to'>,
): AsyncGenerator<readonly BookedAttempt[]> {
  let after = { callId: '00000000-0000-0000-0000-000000000000', number: 0 }
  for (;;) {
    const rows = await readPage(db, { ...request, after })
    yield rows
    const last = rows.at(-1)
    if (!last || rows.length < PAGE) return
    after = { callId: last.callId, number: last.attempt }
  }
}

async function readPage(
  db: Kysely<Database>,
  request: Pick<NewInvoice, 'organisationId' | 'provider' | 'from' | 'to'> & {
    readonly after: { readonly callId: string; readonly number: number }
  },
): Promise<readonly BookedAttempt[]> {
  const { organisationId, provider, from, to, after } = request
  const { rows } = await sql<BookedAttempt>`
    with page as materialized (
      select a.* from attempt a
      where (a.call_id, a.number) > (${after.callId}::uuid, ${after.number}) and a.plan->>'provider' = ${provider}
        and a.project_id in (select id from project where organisation_id = ${organisationId})
        and a.sent_at >= ${from}::timestamptz - ${SLACK}::interval and a.sent_at < ${to}::timestamptz + ${SLACK}::interval
      order by a.call_id, a.number limit ${PAGE}
    )
    select a.call_id as "callId", a.number as attempt, a.detail->>'providerRequestId' as "providerRequestId",
      a.plan->>'upstreamModel' as "upstreamModel", coalesce(a.plan->'cost'->>'currency', a.plan->>'currency') as currency,
      (case when a.plan->'cost'->>'currency' <> a.plan->>'currency' then m.billed else c.charged - m.margin end)::bigint as cost,
      case when jsonb_typeof(a.usage) = 'object' then (a.usage->>'input')::bigint + (a.usage->>'output')::bigint end as tokens,
      a.state = 'resolved' and a.sent_at >= ${from} and a.sent_at < ${to} as "isDue"
    from page a
    cross join lateral (
      select coalesce((select r.amount from transfer r where r.pending_id = a.hold_id), 0) + coalesce((
        select sum(case when k.kind = 'provider_cost' then t.amount else -t.amount end)
        from transfer t join account k on k.id = t.credit_account
        where t.call_id = a.call_id and t.attempt = a.number and t.code in ('overage', 'correction')), 0) as charged
    ) c
    cross join lateral (
      select coalesce(sum(case when t.code <> 'margin' then 0 when k.kind = 'revenue' then t.amount else -t.amount end), 0)
          as margin,
        coalesce(sum(case when t.code = 'margin' or t.currency = a.plan->>'currency' then 0
          when k.kind = 'provider_cost' then t.amount else -t.amount end), 0) as billed
      from transfer t join account k on k.id = t.credit_account
      where t.call_id = a.call_id and t.attempt = a.number and t.code in ('margin', 'cost_exchange')
    ) m
    order by a.call_id, a.number`.execute(db)
  return rows
}
