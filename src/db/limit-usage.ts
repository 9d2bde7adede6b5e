import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'

/** Every lease there ever was: those that were folded into their windows keep their ids. */
export const everyLease = sql`
  select id, project_id, limit_id, starts_at, envelope_id, leased, used, held, false as folded from lease
  union all
  select id, project_id, limit_id, starts_at, envelope_id, used, used, 0, true from folded_lease`

/**
 * What attempts hold and have used of each lease they name, computed from the journal alone: money from the movements,
 * tokens from what was settled, a call for every attempt that was not voided, or that was corrected to more than nothing.
 */
const journalOfLeases = sql`
  select named.id as lease_id, named.limit_id, named.starts_at,
    sum(case when a.state <> 'sent' then 0 when u.measure = 'money' then h.amount when u.measure = 'tokens' then a.tokens
      else 1 end) as held,
    sum(case when a.state = 'sent' then 0 when u.measure = 'money' then coalesce(m.charged, 0)
      when u.measure = 'tokens' then coalesce(a.tokens_used, 0) when m.corrected then (m.charged > 0)::integer
      when r.code = 'capture' then 1 else 0 end) as used
  from attempt a
  cross join lateral unnest(a.leases) as x(id)
  join (${everyLease}) named on named.id = x.id
  join usage_limit u on u.id = named.limit_id
  join transfer h on h.id = a.hold_id
  left join transfer r on r.pending_id = a.hold_id
  left join (
    select t.envelope_id, t.call_id, t.attempt,
      sum(case when c.kind = 'provider_cost' then t.amount else -t.amount end) as charged,
      bool_or(t.code = 'correction') as corrected
    from transfer t join account c on c.id = t.credit_account
    where t.code in ('capture', 'overage', 'correction') and t.call_id is not null
    group by t.envelope_id, t.call_id, t.attempt
  ) m on m.call_id = a.call_id and m.attempt = a.number and m.envelope_id = a.envelope_id
  group by named.id, named.limit_id, named.starts_at`

export interface LimitUsage {
  readonly spent: bigint
  readonly held: bigint
}

/** What a window of a limit has spent and holds, by the journal: its own counters are not looked at. */
export async function limitUsage(
  db: Kysely<Database>,
  limitId: string,
  window: { readonly startsAt: Date },
): Promise<LimitUsage> {
  const { rows } = await sql<LimitUsage>`
    select coalesce(sum(used), 0)::bigint as spent, coalesce(sum(held), 0)::bigint as held
    from (${journalOfLeases}) j where limit_id = ${limitId} and starts_at = ${window.startsAt}`.execute(db)
  return rows[0] ?? { spent: 0n, held: 0n }
}
