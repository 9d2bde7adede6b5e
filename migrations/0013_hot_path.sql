-- The hot path with less work for each hold and each settlement: where all of a batch is plain, nothing goes row by row.

drop function post(uuid, uuid[], json, json);
drop function post_answers(settle_item[]);
drop function post_settles(uuid[], settle_item[], timestamptz);
drop function post_reserves(uuid, uuid[], reserve_item[], timestamptz);
drop function post_leases(moved_lease[]);
drop type plain_settlement;
drop type granted_hold;
drop type moved_pocket;
drop type moved_lease;

-- What an account is, and what was carved for it, changes rarely: it is checked when that is written, and not at every
-- movement.
do $$
declare
  v_name text;
begin
  for v_name in select conname from pg_constraint where conrelid = 'account'::regclass and contype = 'c' loop
    execute format('alter table account drop constraint %I', v_name);
  end loop;
end
$$;

alter table account add constraint account_never_negative check (
  posted_debit >= 0 and posted_credit >= 0 and pending_debit >= 0 and pending_credit >= 0
  and (balance_class is null or posted_credit - posted_debit - pending_debit >= 0)
);

create function check_account() returns trigger language plpgsql as $$
begin
  if (new.kind in ('wallet', 'pocket', 'outside', 'provider_cost', 'revenue', 'exchange', 'overage', 'breakage')
    and new.gate in ('open', 'frozen', 'closing', 'closed') and new.currency ~ '^[A-Z]{3}$' and new.cap >= 0 is not false
    and new.balance_class in ('direct', 'credit') is not false and (new.kind = 'wallet') = (new.wallet_id is not null)
    and (new.kind = 'pocket') = (new.envelope_id is not null)
    and (new.kind in ('wallet', 'pocket')) = (new.balance_class is not null)
    and new.carved >= 0 and new.carved <= new.cap is not false) is not true then
    raise exception 'an account is not well formed: %', new.id using errcode = 'check_violation';
  end if;
  return new;
end
$$;

create trigger account_is_well_formed
  before insert or update of kind, wallet_id, envelope_id, balance_class, currency, gate, cap, carved on account
  for each row execute function check_account();

-- Each kind of movement of a statement is looked at once, and found by key, whatever the planner believes of the tables.
create or replace function check_movements() returns trigger language plpgsql
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  v_wrong record;
begin
  select t.*, d.kind as debit, c.kind as credit into v_wrong
  from (select debit_account, credit_account, code, project_id, currency from posted group by 1, 2, 3, 4, 5) t
  left join lateral (select d.kind from account d
    where d.id = t.debit_account and d.project_id = t.project_id and d.currency = t.currency limit 1) d on true
  left join lateral (select c.kind from account c
    where c.id = t.credit_account and c.project_id = t.project_id and c.currency = t.currency limit 1) c on true
  left join lateral (select k.code from allowed_movement k
    where k.code = t.code and k.debit_kind = d.kind and k.credit_kind = c.kind limit 1) k on true
  where k.code is null limit 1;
  if found then
    raise exception 'no such movement is allowed: %: % from % to %', (
        select p.id from posted p
        where (p.debit_account, p.credit_account, p.code, p.project_id, p.currency)
          = (v_wrong.debit_account, v_wrong.credit_account, v_wrong.code, v_wrong.project_id, v_wrong.currency) limit 1
      ), v_wrong.code, coalesce(v_wrong.debit, 'an account of another project or currency'),
      coalesce(v_wrong.credit, 'an account of another project or currency') using errcode = 'check_violation';
  end if;
  return null;
end
$$;

-- An attempt is written twice; the second time beside the first, so that only what is new is written to the WAL.
alter table attempt set (fillfactor = 50);

-- A pocket that a batch has locked, where its row is, and what it has.
create type locked_pocket as (
  id uuid, place tid, project_id uuid, envelope_id uuid, balance_class text, currency text, gate text, cost uuid,
  version bigint, balance bigint, held bigint
);

-- A hold that is asked for, the limits it falls under with its envelope's leases of them, and what is known of it already.
-- `version`, `balance` and `held` are its pocket's before the batch; `moves` and `taken` count up over the holds of its
-- pocket.
create type asked_hold as (
  ord integer, project_id uuid, account_id uuid, pocket tid, cost uuid, currency text, balance_class text, kind text,
  hold_id uuid, call_id uuid, attempt integer, envelope_id uuid, run_id uuid, owner uuid, amount bigint, tokens bigint,
  plan jsonb, path text, limits uuid[], leases uuid[], places tid[], rooms bigint[], measures text[], steps text[],
  known text, replayed boolean, version bigint, balance bigint, held bigint, moves bigint, taken numeric
);

-- What holds take of a lease, of whatever it measures.
create type moved_lease as (id uuid, place tid, amount bigint, tokens bigint, calls bigint);

-- What became of an item that is not settled or granted as it was asked.
create type odd_verdict as (ord integer, hold_id uuid, verdict text, replayed boolean);

-- Settles, then holds, in the order given, all in one commit. The caller sends no call twice in one batch.
-- p_settles: [settle_item]; amount null = nothing was used (void).
--   Verdicts: settled | apart (not as plain as that: `settle` says what it is).
-- p_reserves: [reserve_item].
--   Verdicts: granted | taken (another executor's) | mismatch (granted before with another amount or pocket) | exhausted
--   (stored; closes this attempt for ever) | frozen | closing | closed | answered | owner_dead | unknown_pocket |
--   unknown_call | invalid_amount; and of those that do not fit, with nothing written: busy (fits once open holds come
--   back), short (ask find_money), lease_short (ask refill_leases), behind (first in first out: somebody in front waits
--   for the same pocket or the same limit).
-- Answers how many were settled and granted, and those that were not, or not only now: `odd`, in the order of their `ord`.
-- Raises PU002 when leases have changed since they were read: nothing is written, and the batch can be sent again, with
-- `p_again`: then they are locked before they are read. Locks pockets by id, then leases by id, then calls by id.
-- Every plan must stay good when the tables grow a thousandfold between two analyses. So a row is looked up by its key in
-- a lateral subquery with a limit, which cannot be turned round, and changed by the place where that found it. (A join of
-- a few new values with the table to be changed was turned round: each hold read all leases there were.) `limit
-- cardinality(…)` lets the planner expect one row and begin with the values. Who looks a value up in an array by its place
-- copies the array each time, so arrays are unnested.
create function post(p_instance uuid, p_accounts uuid[], p_settles jsonb, p_reserves jsonb, p_again boolean,
  out settled integer, out granted integer, out odd odd_verdict[])
language plpgsql security definer set search_path = public, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_memoize = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_settles settle_item[];
  v_reserves reserve_item[];
  v_pockets locked_pocket[];
  v_now timestamptz;
  v_odd odd_verdict[];
begin
  -- What needs no lock comes before the locks: meanwhile another batch may have the same pockets.
  if p_settles is not null then
    v_settles := array(select i from jsonb_populate_recordset(null::settle_item, p_settles) i);
  end if;
  if p_reserves is not null then
    v_reserves := array(select i from jsonb_populate_recordset(null::reserve_item, p_reserves) i);
  end if;
  v_pockets := lock_pockets(p_accounts);
  if p_again then
    perform from lease l where l.envelope_id = any(array(select p.envelope_id from unnest(v_pockets) p)) order by l.id
      for no key update;
  end if;
  v_now := clock_timestamp();
  settled := 0;
  granted := 0;
  if v_settles is not null then
    odd := post_settles(v_pockets, v_settles, v_now);
    settled := cardinality(v_settles) - cardinality(odd);
    if v_reserves is not null then v_pockets := lock_pockets(p_accounts); end if;
  end if;
  if v_reserves is not null then
    v_odd := post_reserves(p_instance, v_pockets, v_reserves, v_now);
    granted := cardinality(v_reserves) - cardinality(v_odd);
    odd := odd || v_odd;
  end if;
end
$$;

-- Locks pockets by id and answers what they have.
create function lock_pockets(p_accounts uuid[]) returns locked_pocket[]
language plpgsql as $$
declare
  v_pockets locked_pocket[];
  v_ahead boolean;
begin
  select array_agg(row(p.id, p.place, p.project_id, p.envelope_id, p.balance_class, p.currency, p.gate, k.id, p.version,
      p.posted_credit - p.posted_debit, p.pending_debit)::locked_pocket),
    bool_or(p.moved_at > clock_timestamp() + clock_tolerance()) into v_pockets, v_ahead
  from (
    select a.*, a.ctid as place from account a where a.id = any(p_accounts) and a.envelope_id is not null order by a.id
    for no key update
  ) p
  left join lateral (
    select k.id from account k where k.project_id = p.project_id and k.kind = 'provider_cost'
      and k.currency = p.currency and k.kind not in ('wallet', 'pocket') limit 1
  ) k on true;
  if v_ahead then
    raise exception 'the clock of the database stands behind the last movement of a pocket'
      using errcode = 'PU001', hint = 'Set the clock right, or wait until it has caught up.';
  end if;
  return coalesce(v_pockets, '{}');
end
$$;

create function post_settles(p_pockets locked_pocket[], p_items settle_item[], p_now timestamptz) returns odd_verdict[]
language plpgsql as $$
#variable_conflict use_column
declare
  v_plain integer[];
  v_leases bigint;
  v_counted bigint;
  v_answered bigint;
  v_resolved bigint;
  v_moved bigint;
begin
  -- The parts run in the order in which the last lines ask for them: leases are locked by id, then calls by id (two
  -- attempts of one, on two pockets, may be answering it), and then all that the pockets' locks guard.
  with plain as materialized (
    select s.*, case when s.amount is null then 0 else coalesce(s.tokens, s.tokens_held) end as tokens_used,
      row_number() over of_pocket as moves, sum(coalesce(s.amount, 0)) over of_pocket as charged,
      sum(s.released) over of_pocket as freed
    from (
      select i.ord, i.project_id, i.account_id, i.hold_id, i.call_id, i.attempt, i.resolution_id, i.amount, i.tokens,
        i.certainty, i.outcome, i.detail, i.usage, i.answer_id, i.answer, p.place as pocket, p.cost, p.currency,
        p.balance_class, p.version, p.balance, p.held, a.place, a.envelope_id, a.run_id, a.route, a.released, a.tokens_held, a.leases
      from unnest(p_items) i
      join unnest(p_pockets) p on p.id = i.account_id and p.project_id = i.project_id
      cross join lateral (
        select a.ctid as place, a.envelope_id, a.run_id, a.plan->>'route' as route, a.held as released,
          a.tokens as tokens_held, a.leases
        from attempt a where a.call_id = i.call_id and a.number = i.attempt and a.hold_id = i.hold_id
          and a.account_id = p.id and a.state = 'sent' and coalesce(i.amount, 0) between 0 and a.held
          and coalesce(i.tokens, 0) between 0 and 1000000000000000 limit 1
      ) a
    ) s window of_pocket as (partition by s.account_id order by s.ord)
  ), use as materialized (
    select x.id, sum(s.released) as held_amount, sum(s.tokens_held) as held_tokens, count(*) as held_calls,
      sum(coalesce(s.amount, 0)) as used_amount, sum(s.tokens_used) as used_tokens, count(s.amount) as used_calls
    from plain s cross join lateral unnest(s.leases) as x(id) group by x.id order by x.id
  ), counted as (
    update lease l set held = l.held - t.held, used = l.used + t.used,
      leased = greatest(l.leased, l.used + t.used + l.held - t.held)
    from (select * from use limit (select count(*) from use)) m
    cross join lateral (
      select x.ctid as place, limit_need(x.measure, m.held_amount, m.held_tokens, m.held_calls) as held,
        limit_need(x.measure, m.used_amount, m.used_tokens, m.used_calls) as used
      from lease x where x.id = m.id limit 1
    ) t where l.ctid = t.place returning 1
  ), stored as (
    insert into payload (id, project_id, run_id, kind, body)
      select s.answer_id, s.project_id, s.run_id, 'answer', s.answer from plain s where s.answer_id is not null
      order by s.answer_id
      on conflict do nothing
  ), answered as (
    update call c set state = 'answered', answer_id = s.answer_id, answer_attempt = s.attempt, answered_at = p_now,
      stop_reason = null, stop_detail = null
    from (select * from plain where answer_id is not null order by call_id limit cardinality(p_items)) s
    cross join lateral (
      select x.ctid as place from call x where x.id = s.call_id and x.state = 'open' limit 1
    ) t where c.ctid = t.place returning c.id
  ), resolved as (
    update attempt a set state = 'resolved', outcome = s.outcome, detail = s.detail, usage = s.usage,
      tokens_used = s.tokens_used, resolved_at = p_now
    from (select * from plain limit cardinality(p_items)) s where a.ctid = s.place returning 1
  ), moved as (
    update account a set posted_debit = a.posted_debit + m.charged, pending_debit = a.pending_debit - m.freed,
      version = a.version + m.moves, moved_at = p_now
    from (
      select s.pocket, max(s.moves) as moves, max(s.charged) as charged, max(s.freed) as freed from plain s
      group by s.pocket limit cardinality(p_items)
    ) m where a.ctid = m.pocket returning m.moves
  ), posted as (
    insert into transfer (id, recorded_at, project_id, code, debit_account, credit_account, currency, amount, released,
        pending_id, envelope_id, run_id, call_id, attempt, certainty, use, debit_version, debit_balance, debit_held)
      select s.resolution_id, p_now, s.project_id, case when s.amount is null then 'void' else 'capture' end, s.account_id,
        s.cost, s.currency, coalesce(s.amount, 0), s.released, s.hold_id, s.envelope_id, s.run_id, s.call_id, s.attempt,
        case when s.amount is not null then s.certainty end,
        case when s.amount is not null then
          case when s.call_id in (select c.id from answered c) then 'useful' else 'wasted' end end,
        s.version + s.moves, s.balance - s.charged, s.held - s.freed
      from plain s order by s.account_id, s.ord
  ), told as (
    insert into event (project_id, run_id, kind, data)
      select s.project_id, s.run_id, 'attempt.settled', jsonb_build_object('callId', s.call_id, 'attempt', s.attempt,
        'route', s.route, 'balanceClass', s.balance_class, 'currency', s.currency, 'outcome', s.outcome,
        'heldNano', s.released::text, 'chargedNano', coalesce(s.amount, 0)::text, 'certainty', s.certainty)
      from plain s where s.run_id is not null
  )
  select (select count(*) from use), (select count(*) from counted), (select count(*) from answered),
    (select count(*) from resolved), (select sum(moves) from moved), (select array_agg(s.ord) from plain s)
    into v_leases, v_counted, v_answered, v_resolved, v_moved, v_plain;
  if v_counted <> v_leases or v_resolved <> cardinality(v_plain) or v_moved <> cardinality(v_plain) then
    raise exception 'a lease, an attempt or a pocket of the batch has changed meanwhile' using errcode = 'PU002';
  end if;
  if cardinality(v_plain) = cardinality(p_items) then return '{}'; end if;
  return array(
    select row(i.ord, i.hold_id, 'apart', false)::odd_verdict from unnest(p_items) i
    where (i.ord = any(v_plain)) is not true order by i.ord
  );
end
$$;

create function post_reserves(p_instance uuid, p_pockets locked_pocket[], p_items reserve_item[], p_now timestamptz)
returns odd_verdict[]
language plpgsql as $$
#variable_conflict use_column
declare
  v_asked asked_hold[];
  v_leases moved_lease[];
  v_plain boolean;
  v_refused refused_hold[];
  v_odd odd_verdict[] := '{}';
begin
  v_asked := array(
  with pocket as materialized (
    select p.*, e.kind, e.parent_id, b.limits, b.leases, b.places, b.rooms, b.measures, b.steps
    from unnest(p_pockets) p
    cross join lateral (select e.kind, e.parent_id, e.subjects from envelope e where e.id = p.envelope_id limit 1) e
    cross join lateral (
      select array_agg(u.id) as limits, array_agg(l.id) as leases, array_agg(l.place) as places,
        array_agg(l.leased - l.used - l.held) as rooms, array_agg(u.measure) as measures, array_agg(u.step) as steps
      from (select * from usage_limit u where u.subject_id = any(e.subjects) and u.retired_at is null
        and u.organisation_id = e.subjects[1] and (u.project_id is null or u.project_id = p.project_id) offset 0) u
      left join (select l.*, l.ctid as place from lease l where l.envelope_id = p.envelope_id offset 0) l
        on l.limit_id = u.id and l.starts_at = window_start(u.period, u.time_zone, p_now)
      where u.currency is null or u.currency = p.currency
    ) b
  )
  select row(h.ord, h.project_id, h.account_id, h.place, h.cost, h.currency, h.balance_class, h.kind, h.hold_id,
      h.call_id, h.attempt, h.envelope_id, h.run_id, h.owner, h.amount, h.tokens, h.plan, h.path, h.limits, h.leases,
      h.places, h.rooms, h.measures, h.steps, h.known, h.replayed, h.version, h.balance, h.held, row_number() over of_pocket,
      sum(h.amount) over of_pocket)::asked_hold
  from (
    select i.*, p.place, p.cost, p.currency, p.balance_class, p.kind, p.version, p.balance, p.held,
      coalesce(p.limits, '{}') as limits, coalesce(p.leases, '{}') as leases, p.places, p.rooms, p.measures,
      coalesce(p.steps, '{}') as steps, c.path, old.call_id is not null or r.hold_id is not null as replayed,
      case
        when old.call_id is not null then case
          when old.hold_id <> i.hold_id or old.owner <> i.owner or old.state <> 'sent' then 'taken'
          when (old.held, old.tokens, old.account_id) <> (i.amount, i.tokens, i.account_id) then 'mismatch'
          else 'granted' end
        when r.hold_id is not null then 'exhausted'
        when p.id is null then 'unknown_pocket'
        when i.amount not between 0 and 1000000000000000 or i.tokens not between 0 and 1000000000000000 then
          'invalid_amount'
        when not exists (select from instance where id = p_instance and lease_until > p_now) then 'owner_dead'
        when p.gate <> 'open' then p.gate
        when c.id is null then 'unknown_call'
        when c.state = 'answered' then 'answered'
        when open.call_id is not null then 'taken'
        when i.amount > p.balance and p.kind <> 'standing' and p.parent_id is null and child.id is null then 'exhausted'
      end as known
    from unnest(p_items) i
    left join pocket p on p.id = i.account_id and p.project_id = i.project_id and p.envelope_id = i.envelope_id
    left join lateral (
      select c.id, c.state, c.path from call c where c.id = i.call_id and c.project_id = i.project_id
        and c.envelope_id = i.envelope_id and c.run_id is not distinct from i.run_id limit 1
    ) c on true
    left join lateral (
      select a.call_id, a.hold_id, a.owner, a.state, a.held, a.tokens, a.account_id from attempt a
      where a.call_id = i.call_id and a.number = i.attempt and a.project_id = i.project_id limit 1
    ) old on true
    left join lateral (
      select a.call_id from attempt a where a.call_id = i.call_id and a.state = 'sent' and a.project_id = i.project_id limit 1
    ) open on true
    left join lateral (
      select e.id from envelope e
      where e.parent_id = p.envelope_id and e.gate <> 'closed' and e.kind = 'child' and i.amount > p.balance limit 1
    ) child on true
    left join lateral (
      select r.hold_id from refusal r where r.hold_id = i.hold_id and r.project_id = i.project_id limit 1
    ) r on true
  ) h window of_pocket as (partition by h.account_id order by h.ord)
  order by h.envelope_id, h.account_id, h.ord);

  -- What they take of leases, and whether all of them fit.
  select array_agg(row(s.id, s.place, s.amount, s.tokens, s.calls)::moved_lease order by s.id)
      filter (where s.id is not null),
    bool_and(s.plain) into v_leases, v_plain
  from (
    select x.id, min(x.place) as place, sum(h.amount) as amount, sum(h.tokens) as tokens, count(*) as calls,
      bool_and(h.known is null and h.taken <= h.balance - h.held and array_remove(h.steps, null) = '{}')
        and (count(x.measure) = 0 or coalesce(
          limit_need(min(x.measure), sum(h.amount), sum(h.tokens), count(*)) <= min(x.room), false)) as plain
    from unnest(v_asked) h
    left join lateral unnest(h.leases, h.places, h.rooms, h.measures) as x(id, place, room, measure) on true group by x.id
  ) s;
  if not v_plain then
    select s.asked, s.leases, s.refused, s.odd into v_asked, v_leases, v_refused, v_odd from sift_holds(v_asked) s;
  end if;
  if cardinality(v_asked) > 0 then perform grant_holds(p_instance, v_asked, v_leases, p_now); end if;
  -- After the leases, as `refill_leases` has it.
  if cardinality(v_refused) > 0 then perform refuse_holds(v_refused, p_now); end if;
  return v_odd;
end
$$;

-- Writes holds that fit, and counts what they take of leases.
create function grant_holds(p_instance uuid, p_holds asked_hold[], p_leases moved_lease[], p_now timestamptz) returns void
language plpgsql as $$
declare
  v_counted bigint;
  v_sent bigint;
  v_moved bigint;
begin
  -- The parts run in the order in which the last lines ask for them: leases are locked by id, then attempts come by call.
  -- Whoever holds the same calls on other pockets waits for the first of them, and never each for the other.
  with asked as materialized (
    select * from unnest(p_holds)
  ), sent as (
    insert into attempt (call_id, number, project_id, run_id, envelope_id, account_id, hold_id, instance_id, owner, held,
        plan, leases, tokens, sent_at)
      select g.call_id, g.attempt, g.project_id, g.run_id, g.envelope_id, g.account_id, g.hold_id, p_instance, g.owner,
        g.amount, g.plan, g.leases, g.tokens, p_now
      from asked g order by g.call_id returning 1
  ), counted as (
    update lease l set held = l.held + limit_need(l.measure, m.amount, m.tokens, m.calls)
      from (select * from unnest(p_leases) limit cardinality(p_leases)) m
      where l.ctid = m.place and l.id = m.id
        and limit_need(l.measure, m.amount, m.tokens, m.calls) <= l.leased - l.used - l.held
      returning 1
  ), moved as (
    update account a set pending_debit = a.pending_debit + m.taken, version = a.version + m.moves, moved_at = p_now
      from (
        select g.pocket, max(g.moves) as moves, max(g.taken) as taken from asked g
        group by g.pocket limit cardinality(p_holds)
      ) m where a.ctid = m.pocket returning m.moves
  ), posted as (
    insert into transfer (id, recorded_at, project_id, code, debit_account, credit_account, currency, amount, envelope_id,
        run_id, call_id, attempt, debit_version, debit_balance, debit_held)
      select g.hold_id, p_now, g.project_id, 'hold', g.account_id, g.cost, g.currency, g.amount, g.envelope_id, g.run_id,
        g.call_id, g.attempt, g.version + g.moves, g.balance, g.held + g.taken
      from asked g
  )
  select (select count(*) from counted), (select count(*) from sent), (select sum(moves) from moved)
    into v_counted, v_sent, v_moved;
  if v_counted <> coalesce(cardinality(p_leases), 0) or v_moved <> cardinality(p_holds) then
    raise exception 'a lease or a pocket of the batch has changed meanwhile' using errcode = 'PU002';
  end if;
end
$$;

-- Sifts holds of which not all can be granted, one by one, in their order: those that are granted, what they take of
-- leases, and the verdicts of the others, with those that never fit.
create function sift_holds(p_asked asked_hold[], out asked asked_hold[], out leases moved_lease[],
  out refused refused_hold[], out odd odd_verdict[])
language plpgsql as $$
declare
  item asked_hold;
  v_verdict text;
  -- Of the pocket at hand: whether somebody waits for its money, or for which limits, and what was granted so far.
  v_pocket uuid;
  v_waits boolean;
  v_short uuid[];
  v_moves bigint;
  v_taken numeric;
  -- Of the envelope at hand: what was granted so far of each of its leases.
  v_envelope uuid;
  v_lent jsonb;
  v_need bigint;
begin
  asked := '{}';
  refused := '{}';
  odd := '{}';
  foreach item in array p_asked loop
    if v_envelope is distinct from item.envelope_id then
      v_envelope := item.envelope_id;
      v_lent := '{}';
    end if;
    if v_pocket is distinct from item.account_id then
      v_pocket := item.account_id;
      v_waits := false;
      v_short := '{}';
      v_moves := 0;
      v_taken := 0;
    end if;
    v_verdict := case
      when item.known is not null then item.known
      when v_waits then 'behind'
      when item.amount > item.balance then 'short'
      when v_taken + item.amount > item.balance - item.held then
        case when item.kind = 'standing' then 'short' else 'busy' end
    end;
    if array_remove(item.steps, null) <> '{}' then
      select coalesce(array_agg(s.id), '{}'), coalesce(array_agg(s.lease), '{}'), array_agg(s.place), array_agg(s.room),
          array_agg(s.measure)
        into item.limits, item.leases, item.places, item.rooms, item.measures
        from unnest(item.limits, item.leases, item.places, item.rooms, item.measures, item.steps)
          as s(id, lease, place, room, measure, step)
        where s.step is null or item.path = s.step or starts_with(item.path, s.step || '/');
    end if;
    for place in 1 .. cardinality(item.limits) loop
      exit when v_verdict is not null;
      v_need := limit_need(item.measures[place], item.amount, item.tokens, 1);
      if item.limits[place] = any(v_short) then
        v_verdict := 'behind';
      elsif (v_need <= item.rooms[place] - coalesce((v_lent->>item.leases[place]::text)::bigint, 0)) is not true then
        v_verdict := 'lease_short';
        v_short := array_append(v_short, item.limits[place]);
      end if;
    end loop;
    if v_verdict is null then
      v_moves := v_moves + 1;
      v_taken := v_taken + item.amount;
      item.moves := v_moves;
      item.taken := v_taken;
      asked := array_append(asked, item);
      for place in 1 .. cardinality(item.limits) loop
        v_need := limit_need(item.measures[place], item.amount, item.tokens, 1);
        v_lent := v_lent
          || jsonb_build_object(item.leases[place], coalesce((v_lent->>item.leases[place]::text)::bigint, 0) + v_need);
      end loop;
      continue;
    end if;
    if v_verdict = 'exhausted' and not item.replayed then
      refused := array_append(refused, row(item.project_id, item.account_id, item.currency, item.balance_class,
        item.hold_id, item.call_id, item.attempt, item.envelope_id, item.run_id, item.amount, item.plan,
        item.balance - item.held - v_taken, 'pocket', null)::refused_hold);
    end if;
    v_waits := v_waits or v_verdict in ('busy', 'short');
    odd := array_append(odd, row(item.ord, item.hold_id, v_verdict, item.replayed)::odd_verdict);
  end loop;
  leases := array(
    select row(l.id, min(l.place), sum(g.amount), sum(g.tokens), count(*))::moved_lease
    from unnest(asked) g cross join lateral unnest(g.leases, g.places) as l(id, place) group by l.id order by l.id
  );
  odd := array(select o from unnest(odd) o order by o.ord);
end
$$;

grant execute on function post to purser_app;
revoke execute on function post, lock_pockets, post_settles, post_reserves, grant_holds, sift_holds, check_account
  from public;
