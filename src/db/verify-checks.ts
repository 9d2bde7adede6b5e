import { sql } from 'kysely'
import type { CheckQuery } from './verify.ts'

/** Every movement twice: once for each guarded account it touched, with what it did to the counters. */
const sides = sql`
  select t.id, t.seq, t.debit_account as account, t.debit_version as version, t.debit_balance as balance,
    t.debit_held as held, case when t.code in ('hold', 'void', 'expire') then 0 else -t.amount end as posted,
    case when t.code = 'hold' then t.amount else -t.released end as pending
  from transfer t where t.debit_version is not null
  union all
  select t.id, t.seq, t.credit_account, t.credit_version, t.credit_balance, t.credit_held, t.amount, 0
  from transfer t where t.credit_version is not null`

export const verifyChecks: readonly CheckQuery[] = [
  {
    name: 'tenants',
    claim: 'both sides of a movement belong to its project and its currency, and a guarded side has a version',
    rows: sql`
      select 'transfer ' || t.id as name, t.seq as place,
        case
          when d.id is null or c.id is null then 'an account is missing'
          when d.project_id <> t.project_id or c.project_id <> t.project_id then 'an account of another project'
          when d.currency <> t.currency or c.currency <> t.currency then 'an account of another currency'
          when (d.kind in ('wallet', 'pocket')) <> (t.debit_version is not null) then 'the debit side has no version'
          when (c.kind in ('wallet', 'pocket')) <> (t.credit_version is not null) and t.code not in
            ('hold', 'capture', 'void', 'expire') then 'the credit side has no version'
        end as wrong
      from transfer t left join account d on d.id = t.debit_account left join account c on c.id = t.credit_account`,
  },
  {
    name: 'fold',
    claim: 'every guarded account equals the fold of its movements',
    rows: sql`
      select 'account ' || a.id as name, a.version as place,
        case
          when a.posted_credit - a.posted_debit <> coalesce(f.posted, 0) then
            'its balance is ' || a.posted_credit - a.posted_debit || ', its movements add up to ' || coalesce(f.posted, 0)
          when a.pending_debit <> coalesce(f.pending, 0) then
            'it holds ' || a.pending_debit || ', its open holds add up to ' || coalesce(f.pending, 0)
        end as wrong
      from account a
      left join (select account, sum(posted) as posted, sum(pending) as pending from (${sides}) s group by account) f
        on f.account = a.id
      where a.kind in ('wallet', 'pocket')`,
  },
  {
    name: 'versions',
    claim: 'the movements of an account are numbered without a gap, up to its version',
    rows: sql`
      select 'account ' || a.id as name, a.version as place,
        case when coalesce(f.movements, 0) <> a.version or coalesce(f.newest, 0) <> a.version
          or coalesce(f.numbers, 0) <> a.version then
          'it is at version ' || a.version || ' and has ' || coalesce(f.movements, 0) || ' movements' end as wrong
      from account a
      left join (
        select account, count(*) as movements, max(version) as newest, count(distinct version) as numbers
        from (${sides}) s group by account
      ) f on f.account = a.id
      where a.kind in ('wallet', 'pocket')`,
  },
  {
    name: 'never negative',
    claim: 'at every version an account has what it held, and the balance written then is the one its movements give',
    rows: sql`
      select 'transfer ' || id as name, seq as place,
        case
          when balance < held then 'holds ' || held || ' of ' || balance
          when balance <> running_posted or held <> running_pending then
            'says balance ' || balance || ' and held ' || held || ', its movements give ' || running_posted || ' and '
            || running_pending
        end as wrong
      from (
        select s.*, sum(posted) over history as running_posted, sum(pending) over history as running_pending
        from (${sides}) s window history as (partition by account order by version)
      ) r`,
  },
  {
    name: 'holds',
    claim: 'a hold resolves at most once, from its own account and with all it held',
    rows: sql`
      select 'transfer ' || r.id as name, r.seq as place,
        case
          when h.id is null or h.code <> 'hold' then 'resolves no hold'
          when h.debit_account <> r.debit_account or h.credit_account <> r.credit_account then 'resolves over other accounts'
          when r.released <> h.amount then 'releases ' || r.released || ' of a hold of ' || h.amount
          when (r.run_id, r.call_id, r.attempt, r.envelope_id) is distinct from
            (h.run_id, h.call_id, h.attempt, h.envelope_id) then 'names another attempt than its hold'
          when r.certainty = 'unknown' and r.amount <> h.amount then 'is unknown and not its whole hold'
          when r.amount > h.amount then 'captures ' || r.amount || ' from a hold of ' || h.amount
        end as wrong
      from transfer r left join transfer h on h.id = r.pending_id where r.code in ('capture', 'void', 'expire')`,
  },
  {
    name: 'attempts',
    claim: 'every attempt has its hold, and is resolved exactly when the hold is',
    rows: sql`
      select 'attempt ' || a.call_id || ':' || a.number as name, coalesce(h.seq, 0) as place,
        case
          when h.id is null then 'has no hold'
          when h.amount <> a.held or h.debit_account <> a.account_id then 'its hold is another'
          when (h.run_id, h.call_id, h.attempt, h.envelope_id) is distinct from
            (a.run_id, a.call_id, a.number, a.envelope_id) then 'its hold names another attempt'
          when a.outcome = 'lost' and r.certainty is distinct from 'unknown' then 'is lost, and its cost is known'
          when (a.state = 'resolved') <> (r.id is not null) then 'is ' || a.state || ' and its hold is not'
        end as wrong
      from attempt a
      left join transfer h on h.id = a.hold_id and h.code = 'hold'
      left join transfer r on r.pending_id = a.hold_id
      union all
      select 'transfer ' || h.id, h.seq, 'a hold without an attempt'
      from transfer h where h.code = 'hold' and not exists (select from attempt a where a.hold_id = h.id)`,
  },
  {
    name: 'prices',
    claim: 'every billed attempt costs what its usage costs at the price that was pinned in its hold',
    rows: sql`
      select 'attempt ' || a.call_id || ':' || a.number as name, r.seq as place,
        case
          when p.id is null then 'its price is missing'
          when charged.amount <> ceil((
              ((a.usage->>'input')::numeric - (a.usage->>'cachedInput')::numeric) * p.input_nano_per_million
              + (a.usage->>'cachedInput')::numeric * p.cached_input_nano_per_million
              + (a.usage->>'output')::numeric * p.output_nano_per_million) / 1000000) + p.per_call_nano
            then 'was charged ' || charged.amount
        end as wrong
      from attempt a
      join transfer r on r.pending_id = a.hold_id
      left join price p on p.id = (a.plan->>'priceId')::uuid
      cross join lateral (
        select sum(case when c.kind = 'provider_cost' then t.amount else -t.amount end) as amount,
          (array_agg(t.certainty order by t.seq desc))[1] as certainty
        from transfer t join account c on c.id = t.credit_account
        where t.run_id = a.run_id and t.call_id = a.call_id and t.attempt = a.number
          and t.code in ('capture', 'overage', 'correction')
      ) charged
      where charged.certainty = 'billed' and a.usage is not null`,
  },
  {
    name: 'answers',
    claim: 'an answered call has one useful attempt: the one that answered it',
    rows: sql`
      select 'call ' || c.id as name, extract(epoch from c.created_at)::bigint as place,
        case
          when c.state = 'open' and u.attempts is not null then 'has no answer but a useful attempt'
          when c.state = 'answered' and u.attempts is distinct from array[c.answer_attempt] then
            'was answered by attempt ' || c.answer_attempt || ', useful are ' || coalesce(u.attempts::text, 'none')
          when c.state = 'answered' and not exists (select from payload p where p.id = c.answer_id) then
            'its answer is missing'
        end as wrong
      from call c
      left join (
        select call_id, array_agg(distinct attempt) as attempts from transfer
        where use = 'useful' and code in ('capture', 'correction') group by call_id
      ) u on u.call_id = c.id`,
  },
  {
    name: 'envelopes',
    claim:
      'a closed envelope is empty, a final run has closed its envelope, and pockets have the gate of their envelope',
    rows: sql`
      select 'envelope ' || e.id as name, extract(epoch from e.created_at)::bigint as place,
        case
          when p.gate <> e.gate then 'is ' || e.gate || ', a pocket is ' || p.gate
          when e.gate = 'closed' and p.posted_credit - p.posted_debit <> 0 then 'is closed and not empty'
          when e.gate = 'closed' and p.pending_debit <> 0 then 'is closed with an open hold'
          when r.finished_at is not null and e.gate <> 'closed' then 'its run is over and it is ' || e.gate
        end as wrong
      from envelope e
      left join account p on p.kind = 'pocket' and p.envelope_id = e.id
      left join run r on r.envelope_id = e.id`,
  },
]
