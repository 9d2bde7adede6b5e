import { sql } from 'kysely'
import { everyLease } from './limit-usage.ts'
import type { TableCheck } from './verify-table.ts'

/** The windows of limits, and whether attempts name leases that are theirs. */
export const limitChecks: readonly TableCheck[] = [
  {
    name: 'limits',
    claim: 'every window of a limit has used what its leases had used when they were folded into it',
    table: 'limit_window',
    key: 'limit_id',
    alias: 'w',
    pieceRows: 200,
    movedBy: null,
    rows: (piece) => sql`
      with w as materialized (select * from limit_window w where ${piece})
      select 'limit ' || w.limit_id || ' from ' || w.starts_at as name, extract(epoch from w.starts_at)::bigint as place,
        case
          when u.id is null then 'its limit is missing'
          when w.used <> coalesce(f.used, 0) then
            'has used ' || w.used || ', its folded leases had used ' || coalesce(f.used, 0)
        end as wrong
      from w left join usage_limit u on u.id = w.limit_id
      left join (
        select limit_id, starts_at, sum(used - late) as used from folded_lease
        where limit_id in (select limit_id from w) group by limit_id, starts_at
      ) f on f.limit_id = w.limit_id and f.starts_at = w.starts_at`,
  },
  {
    name: 'lent',
    claim: 'an attempt holds leases of its own envelope only, in windows that are there',
    table: 'attempt',
    key: 'call_id',
    alias: 'a',
    pieceRows: 10_000,
    movedBy: 'call_id',
    rows: (piece) => sql`
      select 'attempt ' || a.call_id || ':' || a.number as name, extract(epoch from a.sent_at)::bigint as place,
        case
          when l.id is null then 'names a lease that never was'
          when l.envelope_id <> a.envelope_id or l.project_id <> a.project_id then 'names a lease of another envelope'
          when w.limit_id is null then 'names a lease without a window'
        end as wrong
      from attempt a cross join lateral unnest(a.leases) as x(id)
      left join (${everyLease}) l on l.id = x.id
      left join limit_window w on w.limit_id = l.limit_id and w.starts_at = l.starts_at
      where ${piece}`,
  },
]
