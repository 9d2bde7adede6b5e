import { sql } from 'kysely'
import { everyLease } from './limit-usage.ts'
import { epochOf, type TableCheck } from './verify-table.ts'

/**
 * How much more than its cap a window may lend because of what was known late: attempts that cost more than they held,
 * and corrections, which take no window's lock. What of it is idle is recalled within seconds. Asked of few windows, if any.
 */
const cameLate = sql`(
  select coalesce(sum(case
    when u.measure = 'money' then coalesce(x.amount, 0)
    when u.measure = 'tokens' then case when x.is_corrected then u.cap else greatest(a.tokens_used - a.tokens, 0) end
    else 0 end), 0)
  from attempt a left join lateral (
    select sum(t.amount) as amount, bool_or(t.code = 'correction') as is_corrected from transfer t
    where t.envelope_id = a.envelope_id and t.call_id = a.call_id and t.attempt = a.number
      and t.code in ('overage', 'correction')
  ) x on true
  where a.leases && s.ids
)`

/** The windows of limits, and whether attempts name leases that are theirs. */
export const limitChecks: readonly TableCheck[] = [
  {
    name: 'limits',
    claim:
      'every window of a limit has used what its leases had used when they were folded into it, and lends no more than the cap',
    table: 'limit_window',
    key: 'limit_id',
    alias: 'w',
    pieceRows: 200,
    movedBy: null,
    rows: (piece) => sql`
      with w as materialized (select * from limit_window w where ${piece})
      select 'limit ' || w.limit_id || ' from ' || w.starts_at as name, ${epochOf(sql`w.starts_at`)} as place,
        case
          when u.id is null then 'its limit is missing'
          when w.used <> coalesce(f.used, 0) then
            'has used ' || w.used || ', its folded leases had used ' || coalesce(f.used, 0)
          when w.used + s.leased > u.cap and s.idle > 0 and (w.ends_at is null or w.ends_at > clock_timestamp())
            and least(w.used + s.leased - u.cap, s.idle) > ${cameLate} then
            'has used and lends ' || w.used + s.leased || ' of a cap of ' || u.cap
        end as wrong
      from w left join usage_limit u on u.id = w.limit_id
      left join (
        select limit_id, starts_at, sum(used - late) as used from folded_lease
        where limit_id in (select limit_id from w) group by limit_id, starts_at
      ) f on f.limit_id = w.limit_id and f.starts_at = w.starts_at
      cross join lateral (
        select coalesce(sum(l.leased), 0) as leased, coalesce(sum(l.leased - l.used - l.held), 0) as idle,
          coalesce(array_agg(l.id), '{}') as ids
        from lease l where l.limit_id = w.limit_id and l.starts_at = w.starts_at
      ) s`,
  },
  {
    name: 'caps',
    claim: 'a limit has the cap and the thresholds that it was given last, and is retired when somebody has retired it',
    table: 'usage_limit',
    key: 'id',
    alias: 'u',
    pieceRows: 10_000,
    movedBy: null,
    rows: (piece) => sql`
      select 'limit ' || u.id as name, ${epochOf(sql`u.created_at`)} as place,
        case
          when last.cap is distinct from u.cap then 'its cap is ' || u.cap || ', it was given ' || coalesce(last.cap::text, 'none')
          when last.thresholds is distinct from u.thresholds then
            'has the thresholds ' || u.thresholds::text || ', it was given ' || coalesce(last.thresholds::text, 'none')
          when (u.retired_at is not null) <> coalesce(last.change = 'retire', false) then
            'is ' || case when u.retired_at is null then 'in force' else 'retired' end || ', its changes say otherwise'
        end as wrong
      from usage_limit u left join lateral (
        select c.cap, c.thresholds, c.change from limit_change c where c.limit_id = u.id order by c.id desc limit 1
      ) last on true
      where ${piece}`,
  },
  {
    name: 'lessees',
    claim: 'every lease is of an envelope and a window that are there, and counts what its limit counts',
    table: 'lease',
    key: 'id',
    alias: 'l',
    pieceRows: 10_000,
    movedBy: null,
    rows: (piece, join) => sql`
      select 'lease ' || l.id as name, ${epochOf(sql`l.starts_at`)} as place,
        case
          when l.measure is distinct from u.measure then 'counts ' || coalesce(l.measure, 'nothing')
          when e.project_id is distinct from l.project_id then 'its envelope is missing, or of another project'
          when w.limit_id is null then 'its window is missing'
          when not e.subjects @> array[u.subject_id] then 'its limit does not bind its envelope'
        end as wrong
      from lease l
      ${join('usage_limit', 'u', sql`u.id = l.limit_id`)}
      ${join('envelope', 'e', sql`e.id = l.envelope_id`)}
      ${join('limit_window', 'w', sql`w.limit_id = l.limit_id and w.starts_at = l.starts_at`)}
      where ${piece}`,
  },
  {
    name: 'lent',
    claim: 'an attempt holds leases of its own envelope only, in windows that are there',
    table: 'attempt',
    key: 'call_id',
    alias: 'a',
    pieceRows: 10_000,
    isOfCalls: true,
    movedBy: 'call_id',
    rows: (piece, join) => sql`
      select 'attempt ' || a.call_id || ':' || a.number as name, ${epochOf(sql`a.sent_at`)} as place,
        case
          when l.id is null then 'names a lease that never was'
          when l.envelope_id <> a.envelope_id or l.project_id <> a.project_id then 'names a lease of another envelope'
          when w.limit_id is null then 'names a lease without a window'
        end as wrong
      from attempt a cross join lateral unnest(a.leases) as x(id)
      ${join(everyLease, 'l', sql`l.id = x.id`)}
      ${join('limit_window', 'w', sql`w.limit_id = l.limit_id and w.starts_at = l.starts_at`)}
      where ${piece}`,
  },
]
