import type { WebhookTopic } from '#contracts/api-webhook.ts'
import { isTerminal, RUN_STATES } from '#domain/run-states.ts'
import { toAmount } from '#domain/money.ts'
import { sql, type Kysely, type RawBuilder, type Transaction } from 'kysely'
import type { Database } from './schema.ts'
import { deliverLater, type Told } from './webhook-delivery.ts'
import { CROSSED_PER_TURN, crossedLimits, isToldOfLimits } from './webhook-limit.ts'
import { webhookOf, type Webhook } from './webhook.ts'

/** Events that one turn of a webhook looks at. */
const EVENTS_PER_TURN = 500

interface EventRow {
  readonly xid: string
  readonly seq: bigint
  readonly kind: string
  /** Null for a call that belongs to no run. */
  readonly runId: string | null
  readonly keyId: string | null
  readonly data: Readonly<Record<string, unknown>>
  readonly at: Date
  /** Of an attempt: why it was made. */
  readonly why: string | null
}

/**
 * Makes deliveries of what has happened since the last turn, for every webhook that nobody else is at. In the order
 * (xid, seq), each event once: the place a webhook has read to moves in the commit that writes its deliveries.
 *
 * @returns whether there may be more
 */
export async function fanOut(db: Kysely<Database>, nowMs: number): Promise<boolean> {
  const ids = await db.selectFrom('webhook').select('id').where('ended_at', 'is', null).orderBy('id').execute()
  let hasMore = false
  for (const { id } of ids) {
    if (await db.transaction().execute((trx) => turnOf(trx, id, nowMs))) hasMore = true
  }
  return hasMore
}

async function turnOf(trx: Transaction<Database>, id: string, nowMs: number): Promise<boolean> {
  const row = await trx
    .selectFrom('webhook')
    .selectAll()
    .select(isToldOfLimits.as('isToldOfLimits'))
    .where('id', '=', id)
    .where('ended_at', 'is', null)
    .forNoKeyUpdate()
    .skipLocked()
    .executeTakeFirst()
  if (!row) return false
  const webhook = webhookOf(row)
  const events = await eventsOf(trx, webhook, { xid: row.seen_xid, seq: row.seen_seq })
  const last = events.at(-1)
  if (last) {
    await trx.updateTable('webhook').set({ seen_xid: last.xid, seen_seq: last.seq }).where('id', '=', id).execute()
  }
  const told: Told[] = events.flatMap((event) => {
    const topic = topicOf(event)
    return topic && webhook.topics.includes(topic)
      ? [{ topic, source: `event ${event.xid}-${event.seq}`, body: bodyOf(event) }]
      : []
  })
  const crossed = row.isToldOfLimits ? await crossedLimits(trx, webhook, nowMs) : []
  told.push(...crossed)
  if (webhook.topics.includes('low_balance')) told.push(...(await lowBalances(trx, webhook, nowMs)))
  await deliverLater(trx, webhook, { told, nowMs })
  return events.length === EVENTS_PER_TURN || crossed.length === CROSSED_PER_TURN
}

async function eventsOf(
  trx: Transaction<Database>,
  { projectId }: Webhook,
  after: { readonly xid: string; readonly seq: bigint },
): Promise<readonly EventRow[]> {
  const following = (table: RawBuilder<unknown>, whose: RawBuilder<unknown>) => sql`
    select o.xid, o.seq, o.kind, o.data, o.recorded_at, ${whose} from ${table} o
    where o.project_id = ${projectId} and (o.xid, o.seq) > (${after.xid}::text::xid8, ${after.seq}::bigint)
      and o.xid < pg_snapshot_xmin(pg_current_snapshot())
    order by o.xid, o.seq limit ${EVENTS_PER_TURN}`
  const { rows } = await sql<EventRow>`
    select e.xid::text as xid, e.seq, e.kind, e.run_id as "runId", e.api_key_id as "keyId", e.data, e.recorded_at as at,
      case when e.api_key_id is not null then 'fallback' else (
        select a.plan->>'why' from attempt a where e.kind = 'attempt.settled'
          and a.call_id = (e.data->>'callId')::uuid and a.number = (e.data->>'attempt')::integer
      ) end as why
    from (
      (${following(sql`event`, sql`o.run_id, null::uuid`)})
      union all
      (${following(sql`key_event`, sql`null::uuid, o.api_key_id`)})
    ) e (xid, seq, kind, data, recorded_at, run_id, api_key_id)
    order by e.xid, e.seq limit ${EVENTS_PER_TURN}`.execute(trx)
  return rows
}

const STATE_KINDS: ReadonlySet<string> = new Set(RUN_STATES.map((state) => `run.${state}`))
const LAST_KINDS: ReadonlySet<string> = new Set(RUN_STATES.filter(isTerminal).map((state) => `run.${state}`))

function topicOf({ kind, why }: EventRow): WebhookTopic | undefined {
  if (STATE_KINDS.has(kind)) return 'state'
  if (kind === 'run.threshold') return 'threshold'
  if (kind === 'attempt.refused' || kind === 'run.downgraded') return 'exhaustion'
  if (kind === 'attempt.settled' && why === 'fallback') return 'fallback'
  return kind === 'run.asked' ? 'question' : undefined
}

function bodyOf(event: EventRow): Readonly<Record<string, unknown>> {
  const { kind, runId, keyId, data, at, xid, seq } = event
  return {
    type: kind,
    timestamp: at.toISOString(),
    ...(runId !== null && { runId }),
    ...(keyId !== null && { keyId }),
    eventId: `${xid}-${seq}`,
    isLast: LAST_KINDS.has(kind),
    data,
  }
}

/** Wallets that have come below their mark since they were looked at last; those that are above again are forgotten. */
async function lowBalances(trx: Transaction<Database>, webhook: Webhook, nowMs: number): Promise<readonly Told[]> {
  const told: Told[] = []
  for (const { balanceClass, currency, belowNano } of webhook.lowBalance) {
    const wallet = await trx
      .selectFrom('account')
      .innerJoin('wallet', 'wallet.id', 'account.wallet_id')
      .select(['account.id', 'account.posted_credit', 'account.posted_debit', 'account.pending_debit'])
      .where('account.project_id', '=', webhook.projectId)
      .where('account.kind', '=', 'wallet')
      .where('balance_class', '=', balanceClass)
      .where('currency', '=', currency)
      .executeTakeFirst()
    if (!wallet) continue
    const free = wallet.posted_credit - wallet.posted_debit - wallet.pending_debit
    const place = { webhook_id: webhook.id, account_id: wallet.id }
    if (free >= belowNano) {
      await trx
        .deleteFrom('webhook_low_balance')
        .where('webhook_id', '=', webhook.id)
        .where('account_id', '=', wallet.id)
        .execute()
      continue
    }
    const isNew = await trx
      .insertInto('webhook_low_balance')
      .values(place)
      .onConflict((conflict) => conflict.doNothing())
      .returning('account_id')
      .executeTakeFirst()
    if (!isNew) continue
    const timestamp = new Date(nowMs).toISOString()
    const data = { balanceClass, free: toAmount(free, currency), below: toAmount(belowNano, currency) }
    const body = { type: 'wallet.low', timestamp, projectId: webhook.projectId, data }
    told.push({ topic: 'low_balance', source: `wallet ${wallet.id} ${timestamp}`, body })
  }
  return told
}
