import { toAmount } from '#domain/money.ts'
import { sql, type RawBuilder, type Transaction } from 'kysely'
import type { Limit } from './limit.ts'
import type { Database } from './schema.ts'
import type { Told } from './webhook-delivery.ts'
import type { Webhook } from './webhook.ts'

/** Told in one turn, of older windows first: after an hour without a process that tells there may be very many. */
export const CROSSED_PER_TURN = 500

/** A limit with one of its windows, and one of its thresholds. */
interface CrossedRow extends Pick<
  Limit,
  'scope' | 'subjectId' | 'step' | 'measure' | 'currency' | 'period' | 'spent' | 'cap' | 'startsAt' | 'endsAt'
> {
  readonly limitId: string
  readonly percent: number
}

/** Of a row of `webhook`: whether there is anything to look at, which costs far less than to look. */
export const isToldOfLimits = sql<boolean>`'threshold' = any(webhook.topics) and exists (
  select from usage_limit u where u.project_id = webhook.project_id and u.thresholds <> '{}' and u.retired_at is null)`

/** Percentages of limits that have been spent and that a webhook was not told of. The caller holds the webhook's row. */
export async function crossedLimits(
  trx: Transaction<Database>,
  { id, projectId }: Pick<Webhook, 'id' | 'projectId'>,
  nowMs: number,
): Promise<readonly Told[]> {
  const { rows } = await limitsCrossed(id).execute(trx)
  const timestamp = new Date(nowMs).toISOString()
  return rows.map((row) => {
    const { limitId, scope, subjectId, step, measure, currency, period, percent } = row
    const quantity = (value: bigint) => (currency === null ? Number(value) : toAmount(value, currency))
    const window = { startsAt: row.startsAt.toISOString(), resetsAt: row.endsAt?.toISOString() ?? null }
    const what = { limitId, scope, subjectId, step, measure, period }
    const data = { ...what, percent, spent: quantity(row.spent), cap: quantity(row.cap), window }
    const source = `limit ${limitId} ${window.startsAt} ${percent}`
    return { topic: 'threshold', source, body: { type: 'limit.threshold', timestamp, projectId, data } }
  })
}

/**
 * Notes as told, and answers, what a webhook is to be told of: of windows of now, and of those that ended within the last hour,
 * with the terms that they ended with. Of windows of which all was told no lease is looked at, so that a look is cheap.
 */
export function limitsCrossed(webhookId: string): RawBuilder<CrossedRow> {
  return sql<CrossedRow>`
    with due as materialized (
      select h.id as webhook_id, u.id as limit_id, w.starts_at, w.ends_at, w.used, terms.cap, open.percents
      from webhook h
      join usage_limit u on u.project_id = h.project_id and u.thresholds <> '{}' and u.retired_at is null
      join limit_window w on w.limit_id = u.id and w.starts_at <= statement_timestamp()
        and w.starts_at >= window_start(u.period, u.time_zone, statement_timestamp() - interval '1 hour')
        and (w.ends_at is null or w.ends_at > h.thresholds_since)
      cross join lateral (
        select c.cap, c.thresholds from limit_change c
        where c.limit_id = u.id and (w.ends_at is null or c.recorded_at < w.ends_at) order by c.id desc limit 1
      ) terms
      cross join lateral (
        select array_agg(p.percent) as percents from unnest(terms.thresholds) as p(percent)
        where not exists (
          select from webhook_limit_threshold t where t.webhook_id = h.id and t.limit_id = u.id
            and t.starts_at = w.starts_at and t.percent = p.percent
        )
      ) open
      where h.id = ${webhookId} and terms.cap > 0 and open.percents is not null
    ), crossed as (
      select d.webhook_id, d.limit_id, d.starts_at, d.ends_at, d.cap, p.percent,
        (d.used + s.used + f.late)::bigint as spent
      from due d
      cross join lateral (
        select coalesce(sum(l.used), 0) as used from lease l where l.limit_id = d.limit_id and l.starts_at = d.starts_at
      ) s
      cross join lateral (
        select coalesce(sum(l.late), 0) as late from folded_lease l
        where l.limit_id = d.limit_id and l.starts_at = d.starts_at and l.late <> 0
      ) f
      cross join lateral unnest(d.percents) as p(percent)
      where (d.used + s.used + f.late) * 100 >= d.cap::numeric * p.percent
      order by d.starts_at, d.limit_id, p.percent limit ${CROSSED_PER_TURN}
    ), told as (
      insert into webhook_limit_threshold (webhook_id, limit_id, starts_at, percent, ends_at)
      select webhook_id, limit_id, starts_at, percent, ends_at from crossed
      on conflict do nothing returning limit_id, starts_at, percent
    )
    select u.id as "limitId", u.scope, u.subject_id as "subjectId", u.step, u.measure, u.currency, u.period, c.percent,
      c.spent, c.cap, c.starts_at as "startsAt", c.ends_at as "endsAt"
    from crossed c
    join told t on t.limit_id = c.limit_id and t.starts_at = c.starts_at and t.percent = c.percent
    join usage_limit u on u.id = c.limit_id
    order by c.starts_at, u.id, c.percent`
}
