import { sql } from 'kysely'
import { extras } from './verify-attempts.ts'
import type { TableCheck } from './verify-table.ts'

/** Keys of one statement where each row is looked up in the journal. */
const JOINED_PIECE = 10_000

/** Routes of any catalog that are not sold at what they cost, where they are. */
const soldRoutes = sql`
  select c.version, m.value->>'name' as model, r.value->>'name' as route,
    coalesce((r.value->>'markupBps')::integer, 0) as bps,
    coalesce(r.value->>'costCurrency', r.value->>'currency') as currency
  from catalog c
  cross join lateral jsonb_array_elements(c.document->'models') m
  cross join lateral jsonb_array_elements(m.value->'routes') r
  where (r.value->>'markupBps')::integer > 0 or r.value->>'costCurrency' <> r.value->>'currency'`

/** What an attempt's rows say in one currency: the margin, and what went from providers to the exchange. */
const bookedMargins = sql`
  select t.call_id, t.attempt, t.currency,
    sum(case when t.code <> 'margin' then 0 when c.kind = 'revenue' then t.amount else -t.amount end) as margin,
    sum(case when t.code = 'margin' then 0 when c.kind = 'exchange' then t.amount else -t.amount end) as exchanged
  from transfer t join account c on c.id = t.credit_account
  where t.code in ('margin', 'cost_exchange') group by t.call_id, t.attempt, t.currency`

/** What an attempt costs the seller, where that can be computed: see `marginOf` in src/calls/margin.ts. */
const expectedCost = sql`case
  when s.certainty is null then 0
  when s.certainty = 'unknown' then s.held
  when u.cost is not null then case when s.certainty = 'billed' then u.cost else least(u.cost, s.held) end
  when s.charged = 0 then 0 end`

/** What is sold above cost, or in another currency: few attempts, or all of them. */
export const marginCheck: TableCheck = {
  name: 'margins',
  claim:
    'what is not sold at cost is sold at the markup of its route and at its quote, and books its margin, its exchange and its cost',
  table: 'attempt',
  key: 'call_id',
  alias: 'a',
  pieceRows: JOINED_PIECE,
  isOfCalls: true,
  movedBy: 'call_id',
  rows: (piece, join) => sql`
    with route as materialized (${soldRoutes}), own as materialized (
      select a.call_id, a.number, a.hold_id, a.state, a.usage, a.project_id, a.plan->'prices' as prices,
        a.plan->>'route' as route, a.plan->>'currency' as currency, a.plan->'cost' as cost,
        a.plan->'cost'->>'currency' as cost_currency, a.plan->'cost'->'prices' as cost_prices,
        (a.plan->'cost'->>'held')::numeric as held, (a.plan->'cost'->>'markupBps')::numeric as bps,
        (a.plan->'cost'->'quote'->>'id')::uuid as quote_id,
        coalesce((a.plan->'cost'->'quote'->>'sell')::numeric, 1) as sell,
        coalesce((a.plan->'cost'->'quote'->>'buy')::numeric, 1) as buy
      from attempt a
      where ${piece} and (a.plan ? 'cost' or a.plan->>'route' in (select r.route from route r) or exists (
        select from transfer t where t.call_id = a.call_id and t.attempt = a.number and t.code in ('margin', 'cost_exchange')))
    ), term as materialized (
      select t.*, sell_prices(t.cost_prices, t.bps, t.sell, t.buy) as sold
      from (select distinct cost_prices, bps, sell, buy from own where cost is not null) t
    ), extra as materialized (
      select call_id, attempt, sum(amount) as amount, (array_agg(certainty order by seq desc))[1] as certainty
      from (${extras}) e where code in ('overage', 'correction') group by call_id, attempt
    ), settled as (
      select a.*, coalesce(r.seq, 0) as place, coalesce(r.amount + coalesce(e.amount, 0), 0) as charged,
        coalesce(e.certainty, r.certainty) as certainty, v.route is not null as is_sold,
        v.bps as route_bps, v.currency as route_currency, t.sold, coalesce(b.margin, 0) as margin,
        coalesce(b.exchanged, 0) as converted, coalesce(-x.exchanged, 0) as paid,
        b.call_id is not null or x.call_id is not null as is_booked,
        a.quote_id is null or (q.sell_currency, q.buy_currency, q.sell, q.buy, q.organisation_id)
          is not distinct from (a.cost_currency, a.currency, a.sell, a.buy, p.organisation_id) as is_quoted
      from own a
      ${join('transfer', 'r', sql`r.pending_id = a.hold_id`)}
      ${join('call', 'c', sql`c.id = a.call_id`)}
      ${join('project', 'p', sql`p.id = a.project_id`)}
      ${join('quote', 'q', sql`q.id = a.quote_id`)}
      ${join(bookedMargins, 'b', sql`b.call_id = a.call_id and b.attempt = a.number and b.currency = a.currency`)}
      ${join(
        bookedMargins,
        'x',
        sql`x.call_id = a.call_id and x.attempt = a.number and x.currency = a.cost_currency
        and x.currency <> a.currency`,
      )}
      left join extra e on e.call_id = a.call_id and e.attempt = a.number
      left join route v on v.version = c.catalog_version and v.model = c.model and v.route = a.route
      left join term t on t.cost_prices = a.cost_prices and t.bps = a.bps and t.sell = a.sell and t.buy = a.buy
    )
    select 'attempt ' || s.call_id || ':' || s.number as name, s.place,
      case
        when s.cost is null then case
          when s.is_sold then 'is planned at cost, and its route is not sold at cost'
          when s.is_booked then 'has a margin, and is sold at cost' end
        when not s.is_sold then 'is not planned at cost, and its route is sold at cost'
        when (s.bps, s.cost_currency) is distinct from (s.route_bps, s.route_currency) then
          'is planned at another markup, or billed in another currency, than its route'
        when not s.is_quoted or (s.quote_id is null) <> (s.cost_currency = s.currency) then 'its quote is another'
        when s.prices is distinct from s.sold then 'is sold at other prices than its cost, its markup and its quote give'
        when s.state <> 'resolved' then case when s.is_booked then 'is open, and has a margin' end
        when w.booked <> w.expected then 'books a cost of ' || w.booked || ', and it is ' || w.expected
        when w.booked < 0 or s.certainty is distinct from 'billed' and w.booked > s.held then
          'books a cost of ' || w.booked || ', which it cannot have'
        when s.quote_id is not null and s.converted <> sell_of(w.booked, 0, s.sell, s.buy) then
          'exchanges ' || s.converted || ' for its cost of ' || w.booked
        when s.quote_id is not null and s.margin <> s.charged - s.converted then
          'has a margin of ' || s.margin || ', and was charged ' || s.charged
      end as wrong
    from settled s
    cross join lateral (
      select case when s.state = 'resolved' then charge_of(s.cost_prices, nullif(s.usage, 'null')) end as cost offset 0
    ) u
    cross join lateral (
      select ${expectedCost} as expected, case when s.quote_id is null then s.charged - s.margin else s.paid end as booked
    ) w`,
}
