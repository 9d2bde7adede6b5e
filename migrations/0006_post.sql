-- The hot path: settlements and holds of many pockets in one commit, set by set. Locks pockets by id, then leases by id,
-- and nothing else. What is rare (overages, replays, take-overs, money or leases to be fetched) goes one by one through
-- the functions below it.

drop function reserve(uuid, uuid, uuid, jsonb);
drop function settle(uuid, uuid, jsonb, boolean);

-- What an attempt used of its token limits, once that is known.
alter table attempt add column tokens_used bigint check (tokens_used >= 0);

-- Runs that wait for money or for a limit are looked for again and again.
create index run_paused on run (id) where state = 'paused';

-- A lease knows what it measures, so that counting on it needs no look at its limit.
alter table lease add column measure text;
update lease l set measure = u.measure from usage_limit u where u.id = l.limit_id;

create function measure_lease() returns trigger language plpgsql as $$
begin
  new.measure := (select u.measure from usage_limit u where u.id = new.limit_id);
  return new;
end
$$;

create trigger lease_is_measured before insert on lease for each row execute function measure_lease();

-- Settles, then holds, in the order given, all in one commit. The caller sends no call twice in one batch.
-- p_settles: [{ord, project_id, account_id, hold_id, call_id, attempt, resolution_id, amount, tokens, certainty, outcome,
--   detail, usage, answer_id, answer}]; amount null = nothing was used (void).
--   Verdicts: settled | apart (not as plain as that: `settle` says what it is).
-- p_reserves: [{ord, project_id, account_id, hold_id, call_id, attempt, run_id, envelope_id, amount, tokens, owner, plan}].
--   Verdicts: granted | taken (another executor's) | mismatch (granted before with another amount or pocket) | exhausted (stored;
--   closes this attempt for ever) | frozen | closing | closed | answered | owner_dead | unknown_pocket | unknown_call |
--   invalid_amount; and of those that do not fit, with nothing written: busy (fits once open holds come back), short
--   (ask find_money), lease_short (ask refill_leases), behind (first in first out: somebody in front waits).
-- Every lookup is a lateral one by its key: a plan made while the tables were small must not scan them when they have
-- grown.
create function post(p_instance uuid, p_accounts uuid[], p_settles json, p_reserves json)
returns table (hold_id uuid, verdict text, replayed boolean)
language plpgsql security definer set search_path = public, pg_temp
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set enable_bitmapscan = off
set enable_memoize = off set jit = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_now timestamptz;
  v_ahead boolean;
begin
  select bool_or(p.moved_at > clock_timestamp() + clock_tolerance()) into v_ahead from (
    select moved_at from account where id = any(p_accounts) and envelope_id is not null order by id for no key update
  ) p;
  perform from lease l where l.envelope_id = any(array(select a.envelope_id from account a where a.id = any(p_accounts)))
    order by l.id for no key update;
  if v_ahead then
    raise exception 'the clock of the database stands behind the last movement of a pocket'
      using errcode = 'PU001', hint = 'Set the clock right, or wait until it has caught up.';
  end if;
  v_now := clock_timestamp();
  if p_settles is not null then return query select * from post_settles(p_accounts, p_settles, v_now); end if;
  if p_reserves is not null then
    return query select * from post_reserves(p_instance, p_accounts, p_reserves, v_now);
  end if;
end
$$;

create function post_settles(p_accounts uuid[], p_items json, p_now timestamptz)
returns table (hold_id uuid, verdict text, replayed boolean)
language plpgsql as $$
#variable_conflict use_column
begin
  return query
  with item as materialized (
    select i.* from json_to_recordset(p_items) as i(ord integer, project_id uuid, account_id uuid, hold_id uuid,
      call_id uuid, attempt integer, resolution_id uuid, amount bigint, tokens bigint, certainty text, outcome text,
      detail jsonb, usage jsonb, answer_id uuid, answer jsonb)
  ), pocket as materialized (
    select p.*, k.id as cost from unnest(p_accounts) as x(id)
    cross join lateral (select * from account a where a.id = x.id and a.envelope_id is not null limit 1) p
    left join lateral (
      select k.id from account k where k.project_id = p.project_id and k.kind = 'provider_cost'
        and k.currency = p.currency and k.kind not in ('wallet', 'pocket') limit 1
    ) k on true
  ), plain as materialized (
    select i.*, coalesce(i.amount, 0) as charge, coalesce(i.tokens, a.tokens) as tokens_used, p.currency,
      p.balance_class, p.version, p.posted_credit - p.posted_debit as balance, p.pending_debit as held, p.cost,
      a.held as hold_amount, a.envelope_id, a.run_id, a.leases, a.tokens as tokens_held, a.plan->>'route' as route,
      row_number() over w as nth, sum(coalesce(i.amount, 0)) over w as charged, sum(a.held) over w as released
    from item i
    join pocket p on p.id = i.account_id and p.project_id = i.project_id
    cross join lateral (
      select * from attempt a where a.call_id = i.call_id and a.number = i.attempt and a.hold_id = i.hold_id
        and a.account_id = i.account_id and a.state = 'sent' limit 1
    ) a
    where coalesce(i.amount, 0) between 0 and a.held and coalesce(i.tokens, 0) between 0 and 1000000000000000
    window w as (partition by i.account_id order by i.ord)
  ), answering as (
    insert into payload (id, project_id, run_id, kind, body)
    select answer_id, project_id, run_id, 'answer', answer from plain where answer_id is not null
    on conflict do nothing
  ), answered as (
    update call c set state = 'answered', answer_id = s.answer_id, answer_attempt = s.attempt, answered_at = p_now,
      stop_reason = null, stop_detail = null
    from plain s where c.id = s.call_id and c.state = 'open' and s.answer_id is not null
    returning c.id
  ), moved as (
    update account a set posted_debit = a.posted_debit + s.charge, pending_debit = a.pending_debit - s.released,
      version = a.version + s.moves, moved_at = p_now
    from (select account_id, sum(charge) as charge, sum(hold_amount) as released, count(*) as moves
      from plain group by account_id) s
    where a.id = s.account_id
  ), posted as (
    insert into transfer (id, recorded_at, project_id, code, debit_account, credit_account, currency, amount, released,
      pending_id, envelope_id, run_id, call_id, attempt, certainty, use, debit_version, debit_balance, debit_held)
    select s.resolution_id, p_now, s.project_id, case when s.amount is null then 'void' else 'capture' end, s.account_id,
      s.cost, s.currency, s.charge, s.hold_amount, s.hold_id, s.envelope_id, s.run_id, s.call_id, s.attempt,
      case when s.amount is not null then s.certainty end,
      case when s.amount is not null then case when c.id is null then 'wasted' else 'useful' end end,
      s.version + s.nth, s.balance - s.charged, s.held - s.released
    from plain s left join answered c on c.id = s.call_id
    order by s.ord
  ), resolved as (
    update attempt a set state = 'resolved', outcome = s.outcome, detail = s.detail, usage = s.usage, resolved_at = p_now,
      tokens_used = case when s.amount is null then 0 else s.tokens_used end
    from plain s where a.call_id = s.call_id and a.number = s.attempt
  ), leased as (
    update lease l set held = l.held - s.held, used = l.used + s.used,
      leased = greatest(l.leased, l.used + s.used + l.held - s.held)
    from (
      select y.id, limit_need(y.measure, c.held_amount, c.held_tokens, c.held_calls) as held,
        limit_need(y.measure, c.used_amount, c.used_tokens, c.used_calls) as used
      from (
        select x.id, sum(p.hold_amount) as held_amount, sum(p.tokens_held) as held_tokens, count(*) as held_calls,
          sum(p.charge) as used_amount, sum(case when p.amount is not null then p.tokens_used else 0 end) as used_tokens,
          count(p.amount) as used_calls
        from plain p cross join lateral unnest(p.leases) as x(id) group by x.id
      ) c cross join lateral (select y.id, y.measure from lease y where y.id = c.id limit 1) y
    ) s where l.id = s.id
  ), told as (
    insert into event (project_id, run_id, kind, data)
    select project_id, run_id, 'attempt.settled', jsonb_build_object('callId', call_id, 'attempt', attempt, 'route', route,
      'balanceClass', balance_class, 'currency', currency, 'outcome', outcome, 'heldNano', hold_amount::text,
      'chargedNano', charge::text, 'certainty', certainty)
    from plain where run_id is not null order by ord
  )
  select i.hold_id, case when p.hold_id is null then 'apart' else 'settled' end, false
  from item i left join plain p on p.ord = i.ord order by i.ord;
end
$$;

create function post_reserves(p_instance uuid, p_accounts uuid[], p_items json, p_now timestamptz)
returns table (hold_id uuid, verdict text, replayed boolean)
language plpgsql as $$
#variable_conflict use_column
declare
  v_alive boolean := exists (select from instance where id = p_instance and lease_until > p_now);
begin
  return query
  with item as materialized (
    select i.* from json_to_recordset(p_items) as i(ord integer, project_id uuid, account_id uuid, hold_id uuid,
      call_id uuid, attempt integer, run_id uuid, envelope_id uuid, amount bigint, tokens bigint, owner uuid, plan jsonb)
  ), pocket as materialized (
    select p.*, k.id as cost, e.kind as envelope_kind, e.parent_id, e.subjects from unnest(p_accounts) as x(id)
    cross join lateral (select * from account a where a.id = x.id and a.envelope_id is not null limit 1) p
    cross join lateral (select e.kind, e.parent_id, e.subjects from envelope e where e.id = p.envelope_id limit 1) e
    left join lateral (
      select k.id from account k where k.project_id = p.project_id and k.kind = 'provider_cost'
        and k.currency = p.currency and k.kind not in ('wallet', 'pocket') limit 1
    ) k on true
  ), seen as materialized (
    select i.*, p.currency, p.balance_class, p.version, p.posted_credit - p.posted_debit as balance,
      p.pending_debit as held, p.cost, p.envelope_kind as kind, p.parent_id, c.path,
      old.call_id is not null or r.hold_id is not null as replayed,
      case
        when old.call_id is not null then case
          when old.hold_id <> i.hold_id or old.owner <> i.owner or old.state <> 'sent' then 'taken'
          when (old.held, old.tokens, old.account_id) <> (i.amount, i.tokens, i.account_id) then 'mismatch'
          else 'granted' end
        when r.hold_id is not null then 'exhausted'
        when p.id is null then 'unknown_pocket'
        when i.amount not between 0 and 1000000000000000 or i.tokens not between 0 and 1000000000000000 then
          'invalid_amount'
        when not v_alive then 'owner_dead'
        when p.gate <> 'open' then p.gate
        when c.id is null then 'unknown_call'
        when c.state = 'answered' then 'answered'
        when o.call_id is not null then 'taken'
      end as known
    from item i
    left join pocket p on p.id = i.account_id and p.project_id = i.project_id and p.envelope_id = i.envelope_id
    left join lateral (
      select c.id, c.state, c.path from call c where c.id = i.call_id and c.project_id = i.project_id
        and c.envelope_id = i.envelope_id and c.run_id is not distinct from i.run_id limit 1
    ) c on true
    left join lateral (
      select * from attempt a where a.call_id = i.call_id and a.number = i.attempt and a.project_id = i.project_id limit 1
    ) old on true
    left join lateral (
      select o.call_id from attempt o where o.call_id = i.call_id and o.state = 'sent' limit 1
    ) o on true
    left join lateral (
      select r.hold_id from refusal r where r.hold_id = i.hold_id and r.project_id = i.project_id limit 1
    ) r on true
  ), bound as materialized (
    select p.id as account_id, u.step, u.measure, l.id, l.leased - l.used - l.held as room
    from pocket p
    cross join lateral (
      select * from usage_limit u where u.subject_id = any(p.subjects) and u.retired_at is null
        and (u.currency is null or u.currency = p.currency) offset 0
    ) u
    left join lateral (
      select * from lease l where l.envelope_id = p.envelope_id and l.limit_id = u.id
        and l.starts_at = window_start(u.period, u.time_zone, p_now) limit 1
    ) l on true
  ), need as (
    select s.ord, b.id, b.room,
      sum(limit_need(b.measure, s.amount, s.tokens, 1)) over (partition by b.id order by s.ord) as needed
    from seen s
    join bound b on b.account_id = s.account_id and (b.step is null or s.path = b.step or starts_with(s.path, b.step || '/'))
    where s.known is null and s.amount <= s.balance
  ), lent as materialized (
    select ord, bool_or(id is null or needed > room) as short, array_agg(id) as leases from need group by ord
  ), sized as materialized (
    select s.*, coalesce(l.short, false) as lease_short, l.leases,
      sum(s.amount) filter (where s.known is null and s.amount <= s.balance)
        over (partition by s.account_id order by s.ord) as asked
    from seen s left join lent l on l.ord = s.ord
  ), judged as materialized (
    select s.*, case
        when s.known is not null then s.known
        when s.amount > s.balance then case
          when s.kind = 'standing' or s.parent_id is not null or exists (
            select from envelope e where e.parent_id = s.envelope_id and e.gate <> 'closed' and e.kind = 'child'
          ) then 'short' else 'exhausted' end
        when s.asked > s.balance - s.held then case when s.kind = 'standing' then 'short' else 'busy' end
        when s.lease_short then 'lease_short'
      end as verdict
    from sized s
  ), queued as materialized (
    select j.*, case
        when j.verdict is not null then j.verdict
        when bool_or(j.verdict in ('busy', 'short', 'lease_short')) over (partition by j.account_id order by j.ord) then
          'behind'
        else 'fits' end as final
    from judged j
  ), granted as materialized (
    select q.*, row_number() over w as nth, sum(q.amount) over w as taken
    from queued q where q.final = 'fits' window w as (partition by q.account_id order by q.ord)
  ), refused as (
    insert into refusal (hold_id, project_id, run_id, envelope_id, account_id, call_id, attempt, bound, asked, free, plan,
      recorded_at)
    select q.hold_id, q.project_id, q.run_id, q.envelope_id, q.account_id, q.call_id, q.attempt, 'pocket', q.amount,
      q.balance - q.held - coalesce((
        select sum(g.amount) from granted g where g.account_id = q.account_id and g.ord < q.ord
      ), 0), q.plan, p_now
    from queued q where q.final = 'exhausted' and not q.replayed order by q.hold_id
    returning hold_id, project_id, run_id, call_id, attempt, account_id, asked, free, plan
  ), told as (
    insert into event (project_id, run_id, kind, data)
    select r.project_id, r.run_id, 'attempt.refused', jsonb_build_object('callId', r.call_id, 'attempt', r.attempt,
      'route', r.plan->>'route', 'balanceClass', a.balance_class, 'currency', a.currency, 'askedNano', r.asked::text,
      'freeNano', r.free::text)
    from refused r join account a on a.id = r.account_id where r.run_id is not null
  ), held as (
    update account a set pending_debit = a.pending_debit + g.amount, version = a.version + g.moves, moved_at = p_now
    from (select account_id, sum(amount) as amount, count(*) as moves from granted group by account_id) g
    where a.id = g.account_id
  ), posted as (
    insert into transfer (id, recorded_at, project_id, code, debit_account, credit_account, currency, amount, envelope_id,
      run_id, call_id, attempt, debit_version, debit_balance, debit_held)
    select hold_id, p_now, project_id, 'hold', account_id, cost, currency, amount, envelope_id, run_id, call_id, attempt,
      version + nth, balance, held + taken
    from granted order by ord
  ), sent as (
    -- By call, not by turn: whoever holds the same calls on other pockets waits for the first of them, and never each for
    -- the other. Postgres runs this before `posted`: the last of the parts that write begins.
    insert into attempt (call_id, number, project_id, run_id, envelope_id, account_id, hold_id, instance_id, owner, held,
      plan, leases, tokens, sent_at)
    select call_id, attempt, project_id, run_id, envelope_id, account_id, hold_id, p_instance, owner, amount, plan,
      coalesce(leases, '{}'), tokens, p_now
    from granted order by call_id
  ), leased as (
    update lease l set held = l.held + s.held
    from (
      select y.id, limit_need(y.measure, c.amount, c.tokens, c.calls) as held
      from (
        select x.id, sum(g.amount) as amount, sum(g.tokens) as tokens, count(*) as calls
        from granted g cross join lateral unnest(g.leases) as x(id) group by x.id
      ) c cross join lateral (select y.id, y.measure from lease y where y.id = c.id limit 1) y
    ) s where l.id = s.id
  )
  select q.hold_id, case q.final when 'fits' then 'granted' else q.final end, q.replayed from queued q order by q.ord;
end
$$;

-- How much of a limit something takes, by what the limit measures.
create function limit_need(p_measure text, p_amount numeric, p_tokens numeric, p_calls numeric) returns bigint
language sql immutable as $$
  select case p_measure when 'money' then p_amount when 'tokens' then p_tokens else p_calls end::bigint
$$;

-- Changes what leases of an attempt count, outside of the hot path. The caller holds the pocket; p_held comes free.
create function settle_leases(p_leases uuid[], p_held_amount bigint, p_held_tokens bigint, p_held_calls bigint,
  p_used_amount bigint, p_used_tokens bigint, p_used_calls bigint) returns void
language plpgsql as $$
begin
  perform from lease where id = any(p_leases) order by id for no key update;
  update lease l set held = l.held - s.held, used = greatest(0, l.used + s.used),
    leased = greatest(l.leased, l.used + s.used + l.held - s.held)
  from (
    select y.id, limit_need(y.measure, p_held_amount, p_held_tokens, p_held_calls) as held,
      limit_need(y.measure, p_used_amount, p_used_tokens, p_used_calls) as used
    from lease y where y.id = any(p_leases)
  ) s where l.id = s.id;
end
$$;

-- Resolves one attempt, whatever it takes: an overage, a replay, a take-over. p_item as in `post`, with overage_id and
-- debt_id. With p_take_over only an attempt whose owner's lease is dead is resolved.
-- Verdicts: settled | replayed (the same resolution again) | already_resolved | owner_alive | mismatch | unknown_hold |
-- invalid_amount.
create function settle(p_project uuid, p_account uuid, p_item jsonb, p_take_over boolean) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  item record;
  v_account account;
  v_attempt attempt;
  v_hold transfer;
  v_known transfer;
  v_use text;
  v_charge bigint;
  v_from_hold bigint;
  v_answers boolean;
  v_now timestamptz;
begin
  select i.* into item from jsonb_to_record(p_item) as i(hold_id uuid, resolution_id uuid, overage_id uuid, debt_id uuid,
    amount bigint, tokens bigint, certainty text, outcome text, detail jsonb, usage jsonb, answer_id uuid, answer jsonb);
  select * into v_account from account where id = p_account and project_id = p_project and kind = 'pocket'
    for no key update;
  select * into v_hold from transfer t where t.id = item.hold_id and t.project_id = p_project and t.code = 'hold'
    and t.debit_account = p_account;
  if not found then return 'unknown_hold'; end if;
  v_charge := coalesce(item.amount, 0);
  if v_charge not between 0 and 1000000000000000 or item.tokens not between 0 and 1000000000000000 then
    return 'invalid_amount';
  end if;
  v_from_hold := least(v_charge, v_hold.amount);
  select * into v_known from transfer t where t.pending_id = item.hold_id;
  if found then
    return case
      when v_known.id <> item.resolution_id then 'already_resolved'
      when v_known.amount <> v_from_hold or (v_known.code = 'void') <> (item.amount is null)
        or v_charge - v_from_hold <> (select coalesce(sum(t.amount), 0) from transfer t
          where t.id in (item.overage_id, item.debt_id) and t.code = 'overage') then 'mismatch'
      else 'replayed' end;
  end if;
  select * into v_attempt from attempt a where a.call_id = v_hold.call_id and a.number = v_hold.attempt;
  if p_take_over and exists (
    select from instance i where i.id = v_attempt.instance_id and i.lease_until > clock_timestamp()
  ) then return 'owner_alive'; end if;
  v_now := clock_timestamp();
  if v_account.moved_at > v_now + clock_tolerance() then
    raise exception 'the clock of the database stands behind the last movement of a pocket' using errcode = 'PU001';
  end if;
  perform from lease where id = any(v_attempt.leases) order by id for no key update;
  v_answers := store_answer(v_hold, item.answer_id, item.answer);
  v_use := case when item.amount is not null then case when v_answers then 'useful' else 'wasted' end end;
  update account set posted_debit = posted_debit + v_from_hold, pending_debit = pending_debit - v_hold.amount,
      version = version + 1, moved_at = v_now where id = p_account returning * into v_account;
  insert into transfer (id, recorded_at, project_id, code, debit_account, credit_account, currency, amount, released,
      pending_id, envelope_id, run_id, call_id, attempt, certainty, use, debit_version, debit_balance, debit_held)
    values (item.resolution_id, v_now, p_project, case when item.amount is null then 'void' else 'capture' end, p_account,
      v_hold.credit_account, v_hold.currency, v_from_hold, v_hold.amount, v_hold.id, v_hold.envelope_id, v_hold.run_id,
      v_hold.call_id, v_hold.attempt, case when item.amount is not null then item.certainty end, v_use, v_account.version,
      v_account.posted_credit - v_account.posted_debit, v_account.pending_debit);
  if v_charge > v_hold.amount then
    perform book_overage(p_project, p_account, v_charge - v_hold.amount, least(v_charge - v_hold.amount,
        v_account.posted_credit - v_account.posted_debit - v_account.pending_debit), item.overage_id, item.debt_id,
      jsonb_build_object('envelope_id', v_hold.envelope_id, 'run_id', v_hold.run_id, 'call_id', v_hold.call_id,
        'attempt', v_hold.attempt, 'certainty', item.certainty, 'use', v_use));
  end if;
  update attempt a set state = 'resolved', outcome = item.outcome, detail = item.detail, usage = item.usage,
    resolved_at = v_now, tokens_used = case when item.amount is null then 0 else coalesce(item.tokens, a.tokens) end
    where a.call_id = v_hold.call_id and a.number = v_hold.attempt;
  perform settle_leases(v_attempt.leases, v_hold.amount, v_attempt.tokens, 1, v_charge,
    case when item.amount is null then 0 else coalesce(item.tokens, v_attempt.tokens) end,
    case when item.amount is null then 0 else 1 end);
  if v_hold.run_id is not null then
    insert into event (project_id, run_id, kind, data) values (p_project, v_hold.run_id, 'attempt.settled',
      jsonb_build_object('callId', v_hold.call_id, 'attempt', v_hold.attempt, 'route', v_attempt.plan->>'route',
        'balanceClass', v_account.balance_class, 'currency', v_hold.currency, 'outcome', item.outcome,
        'heldNano', v_hold.amount::text, 'chargedNano', v_charge::text, 'certainty', item.certainty));
  end if;
  return 'settled';
end
$$;

-- Truth that comes after an attempt was resolved by estimate: stores the answer if the call has none, and books truth
-- minus what was charged. The money goes back to the pocket, or to the wallet once the envelope is closed.
-- p_item: {hold_id, correction_id, debt_id, amount, tokens, certainty, usage, detail, answer_id, answer}.
-- Verdicts: corrected | replayed | mismatch (these ids with another truth) | unresolved | unknown_hold | invalid_amount.
create or replace function correct(p_project uuid, p_account uuid, p_item jsonb) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  item record;
  v_pocket account;
  v_home account;
  v_hold transfer;
  v_attempt attempt;
  v_seq bigint;
  v_charged bigint;
  v_delta bigint;
  v_taken bigint;
  v_tags jsonb;
  v_answers boolean;
  v_wallet uuid;
  v_lot uuid;
  v_draw record;
  v_id uuid;
begin
  select i.* into item from jsonb_to_record(p_item) as i(hold_id uuid, correction_id uuid, debt_id uuid, amount bigint,
    tokens bigint, certainty text, usage jsonb, detail jsonb, answer_id uuid, answer jsonb);
  if item.amount not between 0 and 1000000000000000 or item.tokens not between 0 and 1000000000000000 then
    return 'invalid_amount';
  end if;
  select wallet_account(p_project, e.wallet_id, p.balance_class, p.currency) into v_wallet
    from account p join envelope e on e.id = p.envelope_id
    where p.id = p_account and p.project_id = p_project and p.kind = 'pocket';
  select * into v_home from account where id = v_wallet;
  select * into v_pocket from account where id = p_account and project_id = p_project and kind = 'pocket'
    for no key update;
  select * into v_hold from transfer t where t.id = item.hold_id and t.project_id = p_project and t.code = 'hold'
    and t.debit_account = p_account;
  if not found then return 'unknown_hold'; end if;
  if not exists (select from transfer t where t.pending_id = item.hold_id) then return 'unresolved'; end if;
  select max(t.seq) into v_seq from transfer k join transfer t on t.xid = k.xid and t.code = 'correction'
    and t.call_id = v_hold.call_id and t.attempt = v_hold.attempt
    where k.id in (item.correction_id, item.debt_id) and k.code = 'correction';
  select coalesce(sum(case when t.credit_account = v_hold.credit_account then t.amount else -t.amount end), 0)
    into v_charged
    from transfer t where t.envelope_id = v_hold.envelope_id and t.call_id = v_hold.call_id
      and t.attempt = v_hold.attempt and t.code in ('capture', 'overage', 'correction') and (v_seq is null or t.seq <= v_seq);
  if v_seq is not null then return case when v_charged = item.amount then 'replayed' else 'mismatch' end; end if;
  select * into v_attempt from attempt a where a.call_id = v_hold.call_id and a.number = v_hold.attempt;
  -- Before the call, as `post` has them: it may be answering another attempt of it.
  perform from lease where id = any(v_attempt.leases) order by id for no key update;
  v_answers := store_answer(v_hold, item.answer_id, item.answer);
  v_delta := item.amount - v_charged;
  v_tags := jsonb_build_object('envelope_id', v_hold.envelope_id, 'run_id', v_hold.run_id, 'call_id', v_hold.call_id,
    'attempt', v_hold.attempt, 'certainty', item.certainty, 'use', case when v_answers then 'useful' else 'wasted' end);
  if v_pocket.gate <> 'closed' then v_home := v_pocket; end if;
  if v_delta <= 0 then
    v_lot := lot_give(v_home.id, -v_delta, lot_of_pocket(p_account));
    perform post_transfer(item.correction_id, p_project, 'correction', v_hold.credit_account, v_home.id, -v_delta,
      v_tags || jsonb_build_object('lot_id', v_lot));
  else
    v_taken := least(v_delta, v_home.posted_credit - v_home.posted_debit - v_home.pending_debit);
    v_id := item.correction_id;
    for v_draw in select * from lot_take(v_home.id, v_taken) loop
      perform post_transfer(v_id, p_project, 'correction', v_home.id, v_hold.credit_account, v_draw.amount,
        v_tags || jsonb_build_object('lot_id', v_draw.lot_id));
      v_id := uuidv7();
    end loop;
    if v_delta > v_taken then
      perform post_transfer(item.debt_id, p_project, 'correction', counterparty(p_project, 'overage', v_pocket.currency),
        v_hold.credit_account, v_delta - v_taken, v_tags);
    end if;
  end if;
  perform settle_leases(v_attempt.leases, 0, 0, 0, v_delta, coalesce(item.tokens - v_attempt.tokens_used, 0), 0);
  update attempt a set usage = item.usage, detail = coalesce(a.detail, '{}') || coalesce(item.detail, '{}'),
    tokens_used = coalesce(item.tokens, a.tokens_used) where a.call_id = v_hold.call_id and a.number = v_hold.attempt;
  if v_hold.run_id is not null then
    insert into event (project_id, run_id, kind, data) values (p_project, v_hold.run_id, 'attempt.corrected',
      jsonb_build_object('callId', v_hold.call_id, 'attempt', v_hold.attempt, 'currency', v_hold.currency,
        'deltaNano', v_delta::text, 'answered', v_answers));
  end if;
  return 'corrected';
end
$$;

grant execute on function post, settle to purser_app;
revoke execute on function post, post_settles, post_reserves, limit_need, measure_lease, settle, settle_leases from public;
