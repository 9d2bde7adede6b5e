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

create type settle_item as (
  ord integer, project_id uuid, account_id uuid, hold_id uuid, call_id uuid, attempt integer, resolution_id uuid,
  amount bigint, tokens bigint, certainty text, outcome text, detail jsonb, usage jsonb, answer_id uuid, answer jsonb
);

create type reserve_item as (
  ord integer, project_id uuid, account_id uuid, hold_id uuid, call_id uuid, attempt integer, run_id uuid,
  envelope_id uuid, amount bigint, tokens bigint, owner uuid, plan jsonb
);

-- A settlement that is plain, with what its pocket has after it.
create type plain_settlement as (
  ord integer, project_id uuid, account_id uuid, cost uuid, currency text, balance_class text, hold_id uuid, call_id uuid,
  attempt integer, envelope_id uuid, run_id uuid, route text, resolution_id uuid, amount bigint, released bigint,
  tokens_held bigint, tokens_used bigint, leases uuid[], certainty text, outcome text, detail jsonb, usage jsonb,
  answer_id uuid, version bigint, balance bigint, held bigint
);

-- A hold that fits, with what its pocket has after it.
create type granted_hold as (
  project_id uuid, account_id uuid, cost uuid, currency text, hold_id uuid, call_id uuid, attempt integer, envelope_id uuid,
  run_id uuid, owner uuid, amount bigint, tokens bigint, plan jsonb, leases uuid[], version bigint, balance bigint,
  held bigint
);

-- A hold that never fits, with what bound it and what was free when it was asked for.
create type refused_hold as (
  project_id uuid, account_id uuid, currency text, balance_class text, hold_id uuid, call_id uuid, attempt integer,
  envelope_id uuid, run_id uuid, amount bigint, plan jsonb, free bigint, bound text, cap bigint
);

-- What a pocket has after all that a batch does to it, and what a batch adds to a lease.
create type moved_pocket as (id uuid, version bigint, balance bigint, held bigint);
create type moved_lease as (id uuid, held bigint, used bigint);

-- Settles, then holds, in the order given, all in one commit. The caller sends no call twice in one batch.
-- p_settles: [settle_item]; amount null = nothing was used (void).
--   Verdicts: settled | apart (not as plain as that: `settle` says what it is).
-- p_reserves: [reserve_item].
--   Verdicts: granted | taken (another executor's) | mismatch (granted before with another amount or pocket) | exhausted (stored;
--   closes this attempt for ever) | frozen | closing | closed | answered | owner_dead | unknown_pocket | unknown_call |
--   invalid_amount; and of those that do not fit, with nothing written: busy (fits once open holds come back), short
--   (ask find_money), lease_short (ask refill_leases), behind (first in first out: somebody in front waits for the same
--   pocket or the same limit).
-- Answers the settlements first; `ord` says which.
-- Every plan must stay good when the tables grow a thousandfold between two analyses. So a row is looked up by its key in
-- a lateral subquery with a limit, which cannot be turned round, and changed by the place where that found it. (A join of
-- a few new values with the table to be changed was turned round: each hold read all leases there were.) `limit
-- cardinality(…)` lets the planner expect one row and begin with the values. Who looks a value up in an array by its place
-- copies the array each time, so arrays are unnested.
create function post(p_instance uuid, p_accounts uuid[], p_settles json, p_reserves json)
returns table (ord integer, hold_id uuid, verdict text, replayed boolean)
language plpgsql security definer set search_path = public, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_memoize = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_settles settle_item[];
  v_reserves reserve_item[];
  v_now timestamptz;
  v_ahead boolean;
  v_envelopes uuid[];
  v_leases uuid[];
begin
  -- What needs no lock comes before the locks: meanwhile another batch may have the same pockets.
  if p_settles is not null then
    v_settles := array(select i from json_populate_recordset(null::settle_item, p_settles) i);
    perform post_answers(v_settles);
  end if;
  if p_reserves is not null then
    v_reserves := array(select i from json_populate_recordset(null::reserve_item, p_reserves) i);
  end if;
  select bool_or(p.moved_at > clock_timestamp() + clock_tolerance()), array_agg(p.envelope_id) into v_ahead, v_envelopes
  from (
    select a.moved_at, a.envelope_id from account a where a.id = any(p_accounts) and a.envelope_id is not null order by a.id
    for no key update
  ) p;
  v_leases := array(select l.id from lease l where l.envelope_id = any(v_envelopes));
  if cardinality(v_leases) > 0 then
    perform from lease l where l.id = any(v_leases) order by l.id for no key update;
  end if;
  if v_ahead then
    raise exception 'the clock of the database stands behind the last movement of a pocket'
      using errcode = 'PU001', hint = 'Set the clock right, or wait until it has caught up.';
  end if;
  v_now := clock_timestamp();
  if v_settles is not null then return query select * from post_settles(p_accounts, v_settles, v_now); end if;
  if v_reserves is not null then
    return query select * from post_reserves(p_instance, p_accounts, v_reserves, v_now);
  end if;
end
$$;

-- Stores answers of attempts that are open. By id, so that nobody waits for each other.
create function post_answers(p_items settle_item[]) returns void
language sql as $$
  insert into payload (id, project_id, run_id, kind, body)
    select s.answer_id, s.project_id, a.run_id, 'answer', s.answer
    from unnest(p_items) s
    cross join lateral (
      select a.run_id from attempt a where a.call_id = s.call_id and a.number = s.attempt and a.hold_id = s.hold_id
        and a.project_id = s.project_id and a.state = 'sent' limit 1
    ) a where s.answer_id is not null order by s.answer_id
    on conflict do nothing
$$;

create function post_settles(p_accounts uuid[], p_items settle_item[], p_now timestamptz)
returns table (ord integer, hold_id uuid, verdict text, replayed boolean)
language plpgsql as $$
#variable_conflict use_column
declare
  item record;
  v_plain plain_settlement[] := '{}';
  v_calls uuid[] := '{}';
  v_answered uuid[];
  v_pockets moved_pocket[] := '{}';
  v_leases moved_lease[];
  -- Of the pocket at hand: what was settled so far.
  v_pocket uuid;
  v_moves bigint;
  v_charged bigint;
  v_released bigint;
begin
  replayed := false;
  for item in
    with pocket as materialized (
      select a.id, a.project_id, a.currency, a.balance_class, a.version, a.posted_credit - a.posted_debit as balance,
        a.pending_debit as held, k.id as cost
      from unnest(p_accounts) as x(id)
      cross join lateral (select * from account a where a.id = x.id and a.envelope_id is not null limit 1) a
      left join lateral (
        select k.id from account k where k.project_id = a.project_id and k.kind = 'provider_cost'
          and k.currency = a.currency and k.kind not in ('wallet', 'pocket') limit 1
      ) k on true
    )
    select i.*, p.currency, p.balance_class, p.version, p.balance, p.held, p.cost, a.held as released, a.envelope_id, a.run_id,
      a.tokens as tokens_held, a.leases, a.plan->>'route' as route
    from unnest(p_items) i
    left join pocket p on p.id = i.account_id and p.project_id = i.project_id
    left join lateral (
      select * from attempt a where a.call_id = i.call_id and a.number = i.attempt and a.hold_id = i.hold_id
        and a.account_id = p.id and a.state = 'sent' and coalesce(i.amount, 0) between 0 and a.held
        and coalesce(i.tokens, 0) between 0 and 1000000000000000 limit 1
    ) a on true
    order by i.account_id, i.ord
  loop
    ord := item.ord;
    hold_id := item.hold_id;
    verdict := case when item.released is null then 'apart' else 'settled' end;
    return next;
    continue when item.released is null;
    if v_pocket is distinct from item.account_id then
      v_pocket := item.account_id;
      v_pockets := array_append(v_pockets, null);
      v_moves := 0;
      v_charged := 0;
      v_released := 0;
    end if;
    v_moves := v_moves + 1;
    v_charged := v_charged + coalesce(item.amount, 0);
    v_released := v_released + item.released;
    v_pockets[cardinality(v_pockets)] := row(v_pocket, item.version + v_moves, item.balance - v_charged,
      item.held - v_released)::moved_pocket;
    if item.answer_id is not null then v_calls := array_append(v_calls, item.call_id); end if;
    v_plain := array_append(v_plain, row(item.ord, item.project_id, item.account_id, item.cost, item.currency,
      item.balance_class, item.hold_id, item.call_id, item.attempt, item.envelope_id, item.run_id, item.route,
      item.resolution_id, item.amount, item.released, item.tokens_held,
      case when item.amount is null then 0 else coalesce(item.tokens, item.tokens_held) end, item.leases, item.certainty,
      item.outcome, item.detail, item.usage, item.answer_id, item.version + v_moves, item.balance - v_charged,
      item.held - v_released)::plain_settlement);
  end loop;
  if cardinality(v_plain) = 0 then return; end if;

  -- Calls are locked first: two attempts of one, on two pockets, may be answering it.
  perform from call c where c.id = any(v_calls) order by c.id for no key update;
  with answered as (
    update call c set state = 'answered', answer_id = s.answer_id, answer_attempt = s.attempt, answered_at = p_now,
      stop_reason = null, stop_detail = null
    from (select * from unnest(v_plain) where answer_id is not null limit cardinality(v_plain)) s
    cross join lateral (select x.ctid as place from call x where x.id = s.call_id and x.state = 'open' limit 1) t
    where c.ctid = t.place returning c.id
  ) select array_agg(id) into v_answered from answered;
  insert into transfer (id, recorded_at, project_id, code, debit_account, credit_account, currency, amount, released,
      pending_id, envelope_id, run_id, call_id, attempt, certainty, use, debit_version, debit_balance, debit_held)
    select s.resolution_id, p_now, s.project_id, case when s.amount is null then 'void' else 'capture' end, s.account_id,
      s.cost, s.currency, coalesce(s.amount, 0), s.released, s.hold_id, s.envelope_id, s.run_id, s.call_id, s.attempt,
      case when s.amount is not null then s.certainty end,
      case when s.amount is not null then case when c.id is null then 'wasted' else 'useful' end end,
      s.version, s.balance, s.held
    from unnest(v_plain) s left join unnest(v_answered) as c(id) on c.id = s.call_id order by s.account_id, s.ord;
  update account a set posted_debit = a.posted_credit - m.balance, pending_debit = m.held, version = m.version,
      moved_at = p_now
    from (select * from unnest(v_pockets) limit cardinality(v_pockets)) m
    cross join lateral (select x.ctid as place from account x where x.id = m.id limit 1) t where a.ctid = t.place;
  update attempt a set state = 'resolved', outcome = s.outcome, detail = s.detail, usage = s.usage,
      tokens_used = s.tokens_used, resolved_at = p_now
    from (select * from unnest(v_plain) limit cardinality(v_plain)) s
    cross join lateral (
      select x.ctid as place from attempt x where x.call_id = s.call_id and x.number = s.attempt limit 1
    ) t where a.ctid = t.place;
  select array_agg(row(s.id, -limit_need(l.measure, s.held_amount, s.held_tokens, s.held_calls),
      limit_need(l.measure, s.used_amount, s.used_tokens, s.used_calls))::moved_lease)
    into v_leases
  from (
    select x.id, sum(s.released) as held_amount, sum(s.tokens_held) as held_tokens, count(*) as held_calls,
      sum(coalesce(s.amount, 0)) as used_amount, sum(s.tokens_used) as used_tokens, count(s.amount) as used_calls
    from unnest(v_plain) s cross join lateral unnest(s.leases) as x(id) group by x.id
  ) s left join lateral (select y.measure from lease y where y.id = s.id limit 1) l on true;
  if v_leases is not null then perform post_leases(v_leases); end if;
  insert into event (project_id, run_id, kind, data)
    select s.project_id, s.run_id, 'attempt.settled', jsonb_build_object('callId', s.call_id, 'attempt', s.attempt,
      'route', s.route, 'balanceClass', s.balance_class, 'currency', s.currency, 'outcome', s.outcome,
      'heldNano', s.released::text, 'chargedNano', coalesce(s.amount, 0)::text, 'certainty', s.certainty)
    from unnest(v_plain) s where s.run_id is not null;
end
$$;

-- Counts on leases that the caller has locked. One that is not there was folded meanwhile, or came since: then the whole
-- batch is given up, and its items go one by one.
create function post_leases(p_leases moved_lease[]) returns void
language plpgsql as $$
declare
  v_rows integer;
begin
  update lease l set held = l.held + m.held, used = l.used + m.used,
      leased = greatest(l.leased, l.used + m.used + l.held + m.held)
    from (select * from unnest(p_leases) limit cardinality(p_leases)) m
    cross join lateral (select x.ctid as place from lease x where x.id = m.id limit 1) t where l.ctid = t.place;
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(p_leases) then
    raise exception 'a lease of the batch is not there any more' using errcode = 'PU002';
  end if;
end
$$;

create function post_reserves(p_instance uuid, p_accounts uuid[], p_items reserve_item[], p_now timestamptz)
returns table (ord integer, hold_id uuid, verdict text, replayed boolean)
language plpgsql as $$
#variable_conflict use_column
declare
  v_alive boolean := exists (select from instance where id = p_instance and lease_until > p_now);
  item record;
  v_granted granted_hold[] := '{}';
  v_refused refused_hold[] := '{}';
  v_pockets moved_pocket[] := '{}';
  v_leases moved_lease[] := '{}';
  -- Of the pocket at hand: whether somebody waits for its money, or for which limits, and what was granted so far.
  v_pocket uuid;
  v_waits boolean;
  v_short uuid[];
  v_moves bigint;
  v_taken bigint;
  -- Of the envelope at hand: what was granted so far of each of its leases.
  v_envelope uuid;
  v_known uuid[];
  v_lent bigint[];
  -- Of the item at hand: its leases, their places among the known, and what it needs of each.
  v_mine uuid[];
  v_places integer[];
  v_needs bigint[];
begin
  for item in
    with pocket as materialized (
      select a.id, a.project_id, a.envelope_id, a.currency, a.balance_class, a.gate, a.version,
        a.posted_credit - a.posted_debit as balance, a.pending_debit as held, k.id as cost, e.kind, e.parent_id,
        b.limits, b.leases, b.rooms, b.measures, b.steps
      from unnest(p_accounts) as x(id)
      cross join lateral (select * from account a where a.id = x.id and a.envelope_id is not null limit 1) a
      cross join lateral (select e.kind, e.parent_id, e.subjects from envelope e where e.id = a.envelope_id limit 1) e
      left join lateral (
        select k.id from account k where k.project_id = a.project_id and k.kind = 'provider_cost'
          and k.currency = a.currency and k.kind not in ('wallet', 'pocket') limit 1
      ) k on true
      cross join lateral (
        select array_agg(u.id) as limits, array_agg(l.id) as leases, array_agg(l.leased - l.used - l.held) as rooms,
          array_agg(u.measure) as measures, array_agg(u.step) as steps
        from (select * from usage_limit u where u.subject_id = any(e.subjects) and u.retired_at is null
          and u.organisation_id = e.subjects[1] and (u.project_id is null or u.project_id = a.project_id) offset 0) u
        left join (select * from lease l where l.envelope_id = a.envelope_id offset 0) l
          on l.limit_id = u.id and l.starts_at = window_start(u.period, u.time_zone, p_now)
        where u.currency is null or u.currency = a.currency
      ) b
    )
    select i.*, p.currency, p.balance_class, p.version, p.balance, p.held, p.cost, p.kind, p.limits, p.leases, p.rooms,
      p.measures, p.steps, c.path, coalesce(old.is_it, false) or r.hold_id is not null as replayed,
      case
        when old.is_it then case
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
        when old.call_id is not null then 'taken'
        when i.amount > p.balance and p.kind <> 'standing' and p.parent_id is null and not exists (
          select from envelope e where e.parent_id = p.envelope_id and e.gate <> 'closed' and e.kind = 'child'
        ) then 'exhausted'
      end as known
    from unnest(p_items) i
    left join pocket p on p.id = i.account_id and p.project_id = i.project_id and p.envelope_id = i.envelope_id
    left join lateral (
      select c.id, c.state, c.path from call c where c.id = i.call_id and c.project_id = i.project_id
        and c.envelope_id = i.envelope_id and c.run_id is not distinct from i.run_id limit 1
    ) c on true
    -- This attempt, if it is there; else another one that is open.
    left join lateral (
      select a.*, a.number = i.attempt as is_it from attempt a
      where a.call_id = i.call_id and (a.number = i.attempt or a.state = 'sent') and a.project_id = i.project_id
      order by a.number <> i.attempt limit 1
    ) old on true
    left join lateral (
      select r.hold_id from refusal r where r.hold_id = i.hold_id and r.project_id = i.project_id limit 1
    ) r on true
    order by i.envelope_id, i.account_id, i.ord
  loop
    if v_envelope is distinct from item.envelope_id then
      v_envelope := item.envelope_id;
      v_known := '{}';
      v_lent := '{}';
    end if;
    if v_pocket is distinct from item.account_id then
      v_pocket := item.account_id;
      v_waits := false;
      v_short := '{}';
      v_moves := 0;
      v_taken := 0;
    end if;
    verdict := case
      when item.known is not null then item.known
      when v_waits then 'behind'
      when item.amount > item.balance then 'short'
      when v_taken + item.amount > item.balance - item.held then case when item.kind = 'standing' then 'short' else 'busy' end
    end;
    v_mine := '{}';
    v_places := '{}';
    v_needs := '{}';
    for place in 1 .. coalesce(cardinality(item.limits), 0) loop
      exit when verdict is not null;
      continue when item.path <> item.steps[place] and not starts_with(item.path, item.steps[place] || '/');
      if item.limits[place] = any(v_short) then
        verdict := 'behind';
        exit;
      end if;
      if item.leases[place] is not null and array_position(v_known, item.leases[place]) is null then
        v_known := array_append(v_known, item.leases[place]);
        v_lent := array_append(v_lent, 0);
      end if;
      v_mine := array_append(v_mine, item.leases[place]);
      v_places := array_append(v_places, array_position(v_known, item.leases[place]));
      v_needs := array_append(v_needs, limit_need(item.measures[place], item.amount, item.tokens, 1));
      if v_needs[cardinality(v_needs)] <= item.rooms[place] - v_lent[v_places[cardinality(v_places)]] then continue; end if;
      verdict := 'lease_short';
      v_short := array_append(v_short, item.limits[place]);
    end loop;
    if verdict is null then
      verdict := 'granted';
      v_moves := v_moves + 1;
      v_taken := v_taken + item.amount;
      for each in 1 .. cardinality(v_mine) loop
        v_lent[v_places[each]] := v_lent[v_places[each]] + v_needs[each];
        v_leases := array_append(v_leases, row(v_mine[each], v_needs[each], 0)::moved_lease);
      end loop;
      v_granted := array_append(v_granted, row(item.project_id, item.account_id, item.cost, item.currency, item.hold_id,
        item.call_id, item.attempt, item.envelope_id, item.run_id, item.owner, item.amount, item.tokens, item.plan, v_mine,
        item.version + v_moves, item.balance, item.held + v_taken)::granted_hold);
      if v_moves = 1 then v_pockets := array_append(v_pockets, null); end if;
      v_pockets[cardinality(v_pockets)] := row(v_pocket, item.version + v_moves, item.balance,
        item.held + v_taken)::moved_pocket;
    elsif verdict = 'exhausted' and not item.replayed then
      v_refused := array_append(v_refused, row(item.project_id, item.account_id, item.currency, item.balance_class,
        item.hold_id, item.call_id, item.attempt, item.envelope_id, item.run_id, item.amount, item.plan,
        item.balance - item.held - v_taken, 'pocket', null)::refused_hold);
    end if;
    v_waits := v_waits or verdict in ('busy', 'short');
    ord := item.ord;
    hold_id := item.hold_id;
    replayed := item.replayed;
    return next;
  end loop;

  if cardinality(v_refused) > 0 then perform refuse_holds(v_refused, p_now); end if;
  if cardinality(v_granted) = 0 then return; end if;
  -- First, and by call: whoever holds the same calls on other pockets waits for the first of them, and never each for the
  -- other.
  insert into attempt (call_id, number, project_id, run_id, envelope_id, account_id, hold_id, instance_id, owner, held,
      plan, leases, tokens, sent_at)
    select g.call_id, g.attempt, g.project_id, g.run_id, g.envelope_id, g.account_id, g.hold_id, p_instance, g.owner,
      g.amount, g.plan, g.leases, g.tokens, p_now
    from unnest(v_granted) g order by g.call_id;
  insert into transfer (id, recorded_at, project_id, code, debit_account, credit_account, currency, amount, envelope_id,
      run_id, call_id, attempt, debit_version, debit_balance, debit_held)
    select g.hold_id, p_now, g.project_id, 'hold', g.account_id, g.cost, g.currency, g.amount, g.envelope_id, g.run_id,
      g.call_id, g.attempt, g.version, g.balance, g.held
    from unnest(v_granted) g;
  update account a set pending_debit = m.held, version = m.version, moved_at = p_now
    from (select * from unnest(v_pockets) limit cardinality(v_pockets)) m
    cross join lateral (select x.ctid as place from account x where x.id = m.id limit 1) t where a.ctid = t.place;
  if cardinality(v_leases) > 0 then
    perform post_leases(array(
      select row(l.id, sum(l.held), 0)::moved_lease from unnest(v_leases) l group by l.id
    ));
  end if;
end
$$;

-- Stores holds that never fit: what closes their attempts for ever. By hold, so that nobody waits for each other.
create function refuse_holds(p_refused refused_hold[], p_now timestamptz) returns void
language sql as $$
  insert into refusal (hold_id, project_id, run_id, envelope_id, account_id, call_id, attempt, bound, asked, free, cap,
      plan, recorded_at)
    select f.hold_id, f.project_id, f.run_id, f.envelope_id, f.account_id, f.call_id, f.attempt, f.bound, f.amount, f.free,
      f.cap, f.plan, p_now
    from unnest(p_refused) f order by f.hold_id;
  insert into event (project_id, run_id, kind, data)
    select f.project_id, f.run_id, 'attempt.refused', jsonb_build_object('callId', f.call_id, 'attempt', f.attempt,
      'route', f.plan->>'route', 'balanceClass', f.balance_class, 'currency', f.currency, 'askedNano', f.amount::text,
      'freeNano', f.free::text)
    from unnest(p_refused) f where f.run_id is not null
$$;

-- How much of a limit something takes, by what the limit measures.
create function limit_need(p_measure text, p_amount numeric, p_tokens numeric, p_calls numeric) returns bigint
language sql immutable as $$
  select case p_measure when 'money' then p_amount when 'tokens' then p_tokens else p_calls end::bigint
$$;

-- Whether a settlement that is asked for again has the certainty, the tokens and the answer it had. Tokens are not
-- compared once a correction has told others; nor is what answered nothing, with no answer at all.
create function is_same_settlement(p_hold transfer, p_known transfer, p_item jsonb) returns boolean
language sql stable as $$
  select (p_known.code = 'void') = (i.amount is null)
    and p_known.certainty is not distinct from case when i.amount is not null then i.certainty end
    and (a.tokens_used is null or a.tokens_used = case when i.amount is null then 0 else coalesce(i.tokens, a.tokens) end
      or exists (select from transfer t where t.call_id = p_hold.call_id and t.attempt = p_hold.attempt
        and t.code in ('overage', 'correction') and t.code = 'correction'))
    and case when p_known.use = 'useful' then c.answer_id is not distinct from i.answer_id else true end
    and (i.answer_id is null or exists (
      select from payload p where p.id = i.answer_id and p.project_id = p_hold.project_id and p.body = i.answer
    ))
  from jsonb_to_record(p_item) as i(amount bigint, tokens bigint, certainty text, answer_id uuid, answer jsonb)
  join call c on c.id = p_hold.call_id
  join attempt a on a.call_id = p_hold.call_id and a.number = p_hold.attempt
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
      when v_known.amount <> v_from_hold or v_charge - v_from_hold <> (select coalesce(sum(t.amount), 0) from transfer t
          where t.id in (item.overage_id, item.debt_id) and t.code = 'overage') then 'mismatch'
      when is_same_settlement(v_hold, v_known, p_item) then 'replayed'
      else 'mismatch' end;
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

grant execute on function post, settle to purser_app;
revoke execute on function post, post_answers, post_settles, post_reserves, post_leases, refuse_holds, limit_need,
  measure_lease, settle, is_same_settlement from public;
