import { sql } from 'kysely'
import type { TableCheck } from './verify-table.ts'

/** Keys of one statement where each row is looked up in the journal. */
const JOINED_PIECE = 10_000

/** What was charged beyond or after an attempt's capture. Rare: read whole, from its own small index. */
const extras = sql`
  select t.call_id, t.attempt, t.use, t.certainty, t.code, t.seq,
    case when exists (select from account d where d.id = t.debit_account and d.kind = 'provider_cost')
      then -t.amount else t.amount end as amount
  from transfer t where t.code in ('overage', 'debt_payment', 'correction') and t.call_id is not null`

export const tableChecks: readonly TableCheck[] = [
  {
    name: 'attempts',
    claim: 'every attempt has its hold, is resolved exactly when the hold is, and a call has at most one that is open',
    table: 'attempt',
    key: 'call_id',
    alias: 'a',
    pieceRows: JOINED_PIECE,
    movedBy: 'call_id',
    rows: (piece) => sql`
      select 'attempt ' || a.call_id || ':' || a.number as name, coalesce(h.seq, 0) as place,
        case
          when h.id is null then 'has no hold'
          when h.amount <> a.held or h.debit_account <> a.account_id then 'its hold is another'
          when (h.run_id, h.call_id, h.attempt, h.envelope_id) is distinct from
            (a.run_id, a.call_id, a.number, a.envelope_id) then 'its hold names another attempt'
          when a.outcome = 'lost' and r.certainty = 'billed' then 'is lost, and its cost is known'
          when r.certainty = 'unknown' and r.amount <> h.amount then 'its cost is unknown, and less than its hold'
          when (a.state = 'resolved') <> (r.id is not null) then 'is ' || a.state || ' and its hold is not'
          when a.state = 'sent' and exists (
            select from attempt o where o.call_id = a.call_id and o.state = 'sent' and o.number < a.number
          ) then 'is open beside another of its call'
        end as wrong
      from attempt a
      left join transfer h on h.id = a.hold_id and h.code = 'hold'
      left join transfer r on r.pending_id = a.hold_id
      where ${piece}`,
  },
  {
    name: 'prices',
    claim: 'every billed attempt costs what its usage costs at the price that was pinned in its hold',
    table: 'attempt',
    key: 'call_id',
    alias: 'a',
    pieceRows: JOINED_PIECE,
    movedBy: 'call_id',
    rows: (piece) => sql`
      with extra as materialized (
        select call_id, attempt, sum(amount) as amount, (array_agg(certainty order by seq desc))[1] as certainty
        from (${extras}) e where code in ('overage', 'correction') group by call_id, attempt
      )
      select 'attempt ' || a.call_id || ':' || a.number as name, r.seq as place,
        case
          when p.id is null then 'its price is missing'
          when r.amount + coalesce(e.amount, 0) <> ceil((
              ((a.usage->>'input')::numeric - (a.usage->>'cachedInput')::numeric) * p.input_nano_per_million
              + (a.usage->>'cachedInput')::numeric * p.cached_input_nano_per_million
              + (a.usage->>'output')::numeric * p.output_nano_per_million) / 1000000) + p.per_call_nano
            then 'was charged ' || r.amount + coalesce(e.amount, 0)
        end as wrong
      from attempt a
      join transfer r on r.pending_id = a.hold_id
      left join price p on p.id = (a.plan->>'priceId')::uuid
      left join extra e on e.call_id = a.call_id and e.attempt = a.number
      where ${piece} and coalesce(e.certainty, r.certainty) = 'billed' and a.usage is not null`,
  },
  {
    name: 'answers',
    claim: 'an answered call has one useful attempt: the one that answered it',
    table: 'call',
    key: 'id',
    alias: 'c',
    pieceRows: JOINED_PIECE,
    movedBy: 'call_id',
    rows: (piece) => sql`
      with extra as materialized (
        select distinct call_id, attempt from (${extras}) e where code = 'correction' and use = 'useful'
      )
      select 'call ' || c.id as name, extract(epoch from c.created_at)::bigint as place,
        case
          when c.state = 'open' and c.first is not null then 'has no answer but a useful attempt'
          when c.state = 'answered' and (c.first, c.last) is distinct from (c.answer_attempt, c.answer_attempt) then
            'was answered by attempt ' || c.answer_attempt || ', useful are '
            || coalesce(c.first || ' to ' || c.last, 'none')
          when c.state = 'answered' and p.id is null then 'its answer is missing'
        end as wrong
      from (
        select c.id, c.created_at, c.state, c.answer_id, c.answer_attempt,
          min(a.number) filter (where r.id is not null or e.call_id is not null) as first,
          max(a.number) filter (where r.id is not null or e.call_id is not null) as last
        from call c
        left join attempt a on a.call_id = c.id
        left join transfer r on r.pending_id = a.hold_id and r.call_id = c.id and r.code = 'capture' and r.use = 'useful'
        left join extra e on e.call_id = a.call_id and e.attempt = a.number
        where ${piece} group by c.id
      ) c left join payload p on p.id = c.answer_id`,
  },
  {
    name: 'envelopes',
    claim:
      'a closed envelope is empty, a final run has closed its envelope, and pockets have the gate of their envelope',
    table: 'envelope',
    key: 'id',
    alias: 'e',
    pieceRows: JOINED_PIECE,
    movedBy: 'envelope_id',
    rows: (piece) => sql`
      select 'envelope ' || e.id as name, extract(epoch from e.created_at)::bigint as place,
        case
          when p.gate <> e.gate then 'is ' || e.gate || ', a pocket is ' || p.gate
          when e.gate = 'closed' and p.posted_credit - p.posted_debit <> 0 then 'is closed and not empty'
          when e.gate = 'closed' and p.pending_debit <> 0 then 'is closed with an open hold'
          when e.gate = 'closed' and exists (
            select from envelope c where c.parent_id = e.id and c.gate <> 'closed'
          ) then 'is closed, and a child of it is not'
          when r.finished_at is not null and e.gate <> 'closed' then 'its run is over and it is ' || e.gate
        end as wrong
      from envelope e
      left join account p on p.kind = 'pocket' and p.envelope_id = e.id
      left join run r on r.envelope_id = e.id
      where ${piece}`,
  },
  {
    name: 'lots',
    claim: 'what a lot has free is what came into it less what went out, and the lots of a wallet are all its credit',
    table: 'account',
    key: 'id',
    alias: 'w',
    pieceRows: 200,
    movedBy: null,
    rows: (piece) => sql`
      with asked as materialized (
        select w.id, w.posted_credit - w.posted_debit as balance, extract(epoch from w.created_at)::bigint as place
        from account w where w.kind = 'wallet' and w.balance_class = 'credit' and ${piece}
      ), folded as materialized (
        select l.id, l.account_id, l.free, l.opening + coalesce((
          select sum(case when t.credit_account = l.account_id then t.amount else -t.amount end)
          from transfer t where t.lot_id = l.id and l.account_id in (t.credit_account, t.debit_account)
        ), 0) as moved
        from asked w join lot l on l.account_id = w.id
      )
      select 'lot ' || f.id as name, w.place,
        case when f.free <> f.moved then 'has ' || f.free || ' free, its movements leave ' || f.moved end as wrong
      from folded f join asked w on w.id = f.account_id
      union all
      select 'account ' || w.id, w.place,
        case when w.balance <> coalesce(sum(f.free), 0) then
          'has ' || w.balance || ' of credit, its lots have ' || coalesce(sum(f.free), 0) end
      from asked w left join folded f on f.account_id = w.id group by w.id, w.balance, w.place`,
  },
  {
    name: 'refusals',
    claim: 'what was refused did not fit: less was free than was asked',
    table: 'refusal',
    key: 'hold_id',
    alias: 'f',
    pieceRows: 50_000,
    movedBy: null,
    rows: (piece) => sql`
      select 'refusal ' || f.hold_id as name, extract(epoch from f.recorded_at)::bigint as place,
        case when f.free >= f.asked then 'asked for ' || f.asked || ' when ' || f.free || ' were free' end as wrong
      from refusal f where ${piece}`,
  },
]
