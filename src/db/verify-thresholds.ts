import { sql } from 'kysely'
import type { Lookup } from './verify-lookup.ts'
import { epochOf, type TableCheck } from './verify-table.ts'

/**
 * What is spent of a pocket is told here as `tell_thresholds` tells it: what it was given, has not gone home and is in no pocket
 * of its tree. That is exact in one snapshot, since who may cross a threshold waits for the others. What was spent when one
 * was told is not, because commits have no order: at most what the journal had by that clock.
 */
export const thresholdCheck: TableCheck = {
  name: 'thresholds',
  claim: 'a threshold of a run is told once and at its mark, and none that is reached is untold',
  table: 'run_threshold',
  key: 'run_id',
  alias: 't',
  /** A run that was told something has what it spent added up, call by call. */
  pieceRows: 100,
  movedBy: null,
  rows: (piece, join) => sql`
    with recursive t as materialized (select * from run_threshold t where ${piece}),
    ${spentNow(join)}, ${spentThen(join)}
    select 'threshold ' || t.run_id || ' ' || t.percent || ' % of ' || t.balance_class || ' ' || t.currency as name,
      ${epochOf(sql`w.created_at`)} as place,
      case
        when w.account_id is null then 'its run has no such pocket'
        when x.times > 1 then 'was told ' || x.times || ' times'
        when x.times = 1 and t.told_at is null then 'was told, and says it was not'
        -- The events of a run that is over may be gone, all of them. (An "exists" would read the whole table.)
        when x.times = 0 and t.told_at is not null
          and (select e.kind from event e where e.run_id = t.run_id limit 1) is not null then 'says it was told, and was not'
        when x.spent * 100 < x.funded * t.percent then 'was told at ' || x.spent || ' of ' || x.funded
        when x.times = 1 and not exists (
          select from (
            select sum(m.amount) over (order by m.credit_version) as funded from transfer m
            where m.envelope_id = w.envelope_id and m.code = 'top_up' and m.credit_account = w.account_id
          ) given where given.funded = x.funded
        ) then 'was told of ' || coalesce(x.funded::text, 'no') || ' funded, which its pocket never was'
        when x.times = 1 and x.spent > b.amount then
          'was told at ' || x.spent || ', ' || b.amount || ' was spent by then'
        when t.told_at is null and w.spent * 100 >= w.funded * t.percent then
          'is reached with ' || w.spent || ' of ' || w.funded || ', and was not told'
      end as wrong
    from t
    left join money w using (run_id, balance_class, currency)
    cross join lateral (
      select count(*) as times, min(x.spent) as spent, min(x.funded) as funded from told x
      where (x.run_id, x.balance_class, x.currency, x.percent) = (t.run_id, t.balance_class, t.currency, t.percent)
    ) x
    cross join lateral (
      select min(b.amount) as amount from spent b
      where (b.run_id, b.balance_class, b.currency, b.percent) = (t.run_id, t.balance_class, t.currency, t.percent)
    ) b`,
}

/** `money`: of each pocket with thresholds, by `watched` and `tree`. */
const spentNow = (join: Lookup) => sql`
    watched as materialized (
      select w.*, r.envelope_id, r.created_at, a.id as account_id
      from (select distinct run_id, balance_class, currency from t) w
      ${join('run', 'r', sql`r.id = w.run_id`)}
      ${join(
        'account',
        'a',
        sql`a.kind = 'pocket' and a.envelope_id = r.envelope_id and a.balance_class = w.balance_class
          and a.currency = w.currency`,
      )}
    ),
    -- Without what is closed: that is empty.
    tree(run_id, id) as (
      select run_id, envelope_id from watched
      union
      select x.run_id, e.id from tree x
        cross join lateral (select id from envelope where parent_id = x.id and gate <> 'closed' offset 0) e
    ),
    money as materialized (
      select w.*, f.funded, f.funded - f.home - b.rest as spent
      from watched w
      cross join lateral (
        select coalesce(sum(m.amount) filter (where m.code = 'top_up' and m.credit_account = w.account_id), 0) as funded,
          coalesce(sum(m.amount) filter (where m.code = 'return' and m.debit_account = w.account_id), 0) as home
        from transfer m where m.envelope_id = w.envelope_id and m.code in ('top_up', 'return')
      ) f
      cross join lateral (
        select coalesce(sum(a.rest), 0) as rest from tree x cross join lateral (
          select a.posted_credit - a.posted_debit as rest from account a where a.kind = 'pocket' and a.envelope_id = x.id
            and a.balance_class = w.balance_class and a.currency = w.currency offset 0
        ) a where x.run_id = w.run_id
      ) b
    )`

/** `told`, and by `family` and `spending` what was `spent` at most when it was. */
const spentThen = (join: Lookup) => sql`
    told as materialized (
      select e.run_id, e.data->>'balanceClass' as balance_class, e.data->>'currency' as currency,
        (e.data->>'percent')::integer as percent, (e.data->>'spentNano')::numeric as spent,
        (e.data->>'fundedNano')::numeric as funded, e.recorded_at
      from (select distinct run_id from t) x
      cross join lateral (select * from event where run_id = x.run_id and kind = 'run.threshold' offset 0) e
    ),
    family(run_id, id) as (
      select run_id, run_id from told
      union
      select f.run_id, r.id from family f
        cross join lateral (select id from run where parent_run_id = f.id offset 0) r
    ),
    -- What came back is left out: at most so much was spent.
    spending as (
      select f.run_id, p.balance_class, p.currency, m.recorded_at as at, m.amount, null::integer as percent
      from family f
      cross join lateral (
        select * from transfer where run_id = f.id and code in ('capture', 'overage', 'correction') offset 0
      ) m
      ${join('account', 'p', sql`p.id = m.debit_account and p.kind = 'pocket'`)}
      union all
      select run_id, balance_class, currency, recorded_at + clock_tolerance(), 0, percent from told
    ),
    spent as materialized (
      select * from (
        select run_id, balance_class, currency, percent,
          sum(amount) over (partition by run_id, balance_class, currency order by at) as amount
        from spending
      ) added where percent is not null
    )`
