import { sql, type RawBuilder } from 'kysely'
import type { Lookup } from './verify-lookup.ts'
import type { TableCheck } from './verify-table.ts'

/** Keys of one statement where each row is looked up in the journal. */
const JOINED_PIECE = 10_000

/** What was charged beyond or after an attempt's capture. Rare: read whole, from its own small index. */
export const extras = sql`
  select t.call_id, t.attempt, t.use, t.certainty, t.code, t.seq,
    case when exists (select from account d where d.id = t.debit_account and d.kind = 'provider_cost')
      then -t.amount else t.amount end as amount
  from transfer t where t.code in ('overage', 'debt_payment', 'correction') and t.call_id is not null`

/** Attempts against their holds, their calls and their prices. */
export const attemptChecks: readonly TableCheck[] = [
  {
    name: 'attempts',
    claim: 'every attempt has its hold, is resolved exactly when the hold is, and a call has at most one that is open',
    table: 'attempt',
    key: 'call_id',
    alias: 'a',
    pieceRows: JOINED_PIECE,
    isOfCalls: true,
    movedBy: 'call_id',
    rows: (piece, join) => sql`
      select 'attempt ' || a.call_id || ':' || a.number as name, coalesce(h.seq, 0) as place,
        case
          when h.id is null then 'has no hold'
          when h.amount <> a.held or h.debit_account <> a.account_id then 'its hold is another'
          when (h.run_id, h.call_id, h.attempt, h.envelope_id) is distinct from
            (a.run_id, a.call_id, a.number, a.envelope_id) then 'its hold names another attempt'
          when a.outcome = 'lost' and r.certainty = 'billed' then 'is lost, and its cost is known'
          when r.certainty = 'unknown' and r.amount <> h.amount then 'its cost is unknown, and less than its hold'
          when (a.state = 'resolved') <> (r.id is not null) then 'is ' || a.state || ' and its hold is not'
          when (a.state = 'resolved') <> (a.outcome is not null and a.resolved_at is not null) then
            'is ' || a.state || ' with the outcome ' || coalesce(a.outcome, 'none')
          when r.code = 'capture' and (r.certainty is null or r.use is null) then 'its cost has no labels'
          when c.id is null then 'its call is missing'
          when (c.project_id, c.run_id, c.envelope_id, h.project_id) is distinct from
            (a.project_id, a.run_id, a.envelope_id, a.project_id) then 'its call is of another run, envelope or project'
          when a.state = 'sent' and exists (
            select from attempt o where o.call_id = a.call_id and o.state = 'sent' and o.number < a.number
          ) then 'is open beside another of its call'
        end as wrong
      from attempt a
      ${join('transfer', 'h', sql`h.id = a.hold_id and h.code = 'hold'`)}
      ${join('transfer', 'r', sql`r.pending_id = a.hold_id`)}
      ${join('call', 'c', sql`c.id = a.call_id`)}
      where ${piece}`,
  },
  {
    name: 'prices',
    claim:
      'every billed attempt costs what its usage costs at the price that was pinned in its hold, and plans are of their price',
    table: 'attempt',
    key: 'call_id',
    alias: 'a',
    pieceRows: JOINED_PIECE,
    isOfCalls: true,
    movedBy: 'call_id',
    rows: (piece, join) => sql`
      with extra as materialized (
        select call_id, attempt, sum(amount) as amount, (array_agg(certainty order by seq desc))[1] as certainty
        from (${extras}) e where code in ('overage', 'correction') group by call_id, attempt
      ), book as materialized (
        select price.id::text as id, provider, upstream_model, currency, input_nano_per_million::numeric as input,
          cached_input_nano_per_million::numeric as cached, output_nano_per_million::numeric as output,
          per_call_nano::numeric as per_call, more is null as is_plain, prices_of(price) as prices
        from price
      )
      select 'attempt ' || a.call_id || ':' || a.number as name, coalesce(r.seq, 0) as place,
        case
          when a.has_no_price then case when b.is_billed then 'its price is missing' end
          when a.planned_wrong is not null then a.planned_wrong
          when not b.is_billed then null
          when a.cost is not null then case when b.charged <> a.cost then 'was charged ' || b.charged end
          when b.charged <> 0 then 'was charged ' || b.charged || ', and what it used is not known'
        end as wrong
      from (${costs(piece, join)} offset 0) a
      ${join('transfer', 'r', sql`r.pending_id = a.hold_id`)}
      left join extra e on e.call_id = a.call_id and e.attempt = a.number
      cross join lateral (
        select r.amount + coalesce(e.amount, 0) as charged,
          coalesce(e.certainty, r.certainty) is not distinct from 'billed' as is_billed
      ) b`,
  },
]

/**
 * What attempts must have cost, and how they were planned: plans are put away before anything large is joined. Where all
 * input and all output is priced alike, whatever else was used is in it, and no function has to be called.
 */
function costs(piece: RawBuilder<boolean>, join: Lookup): RawBuilder<unknown> {
  const isNumber = (key: string) => sql`pg_input_is_valid(a.usage->>${sql.lit(key)}, 'bigint')`
  return sql`
    select a.call_id, a.number, a.hold_id, p.id is null as has_no_price,
      case
        when (a.plan->>'provider', a.plan->>'upstreamModel', b.billed->>'currency', a.plan->>'currency')
          is distinct from (p.provider, p.upstream_model, p.currency, k.currency) then
          'its price is that of another route'
        when a.plan->>'balanceClass' is distinct from k.balance_class then 'was planned for another balance'
        when b.billed->'prices' is distinct from p.prices then 'was planned at other prices'
      end as planned_wrong,
      case
        when not p.is_plain or a.plan ? 'cost' then charge_of(a.plan->'prices', a.usage)
        when ${isNumber('input')} and ${isNumber('output')} and ${isNumber('cachedInput')} then
          div(
            ((a.usage->>'input')::numeric - (a.usage->>'cachedInput')::numeric) * p.input
            + (a.usage->>'cachedInput')::numeric * p.cached
            + (a.usage->>'output')::numeric * p.output + 999999, 1000000) + p.per_call
      end as cost
    from attempt a
    ${join('account', 'k', sql`k.id = a.account_id`)}
    left join book p on p.id = a.plan->>'priceId'
    cross join lateral (select coalesce(a.plan->'cost', a.plan) as billed) b
    where ${piece}`
}
