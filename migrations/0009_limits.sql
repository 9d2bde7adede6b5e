-- Limits at work. A window's cap is lent to envelopes in leases, and whatever lends or takes back (refill, recall, a
-- lowered cap, folding) holds the window's row: the leases of a window together never exceed its cap. Only the truth
-- about an attempt that used more than it had held can: what was spent is always recorded.
-- Order of locks here: windows by (limit_id, starts_at), then the limit, then the pocket, then leases by id in one pass,
-- then folded leases by id.

-- The key that set it: what an operator has set, no project key may change.
alter table usage_limit add column set_by uuid;

-- A lease that may keep nothing: its window's cap was lowered, or exceeded by what an attempt truly used. What comes back
-- from its holds is not lent again before a refill has looked at the cap.
alter table lease add column recalled boolean not null default false;

create function return_idle() returns trigger language plpgsql as $$
begin
  new.leased := new.used + new.held;
  return new;
end
$$;

create trigger lease_returns_idle before update of used, held on lease
  for each row when (new.recalled) execute function return_idle();

-- Who did what to a limit, and when.
create table limit_change (
  id uuid primary key default uuidv7(),
  organisation_id uuid not null,
  limit_id uuid not null,
  change text not null check (change in ('set', 'cap', 'retire')),
  cap bigint not null,
  api_key_id uuid,
  recorded_at timestamptz not null default clock_timestamp()
);

create index limit_change_by_limit on limit_change (limit_id, id);
create trigger limit_change_is_append_only before update or delete on limit_change
  for each row execute function refuse_change();
create trigger limit_change_keeps_its_rows before truncate on limit_change
  for each statement execute function refuse_change();

-- What became of leases: attempts name them for ever. `used` is in the window's `used`, all but `late`: what corrections
-- have added since, until the next folding (a correction may not wait for a window: it holds a pocket).
create table folded_lease (
  id uuid primary key,
  project_id uuid not null,
  limit_id uuid not null,
  starts_at timestamptz not null,
  envelope_id uuid not null,
  used bigint not null check (used >= 0),
  late bigint not null default 0
);

create index folded_lease_late on folded_lease (limit_id, starts_at) where late <> 0;

grant select on limit_change, folded_lease to purser_app;

-- A window of a limit as an envelope meets it that needs some: what of the cap was spent, is held and is lent; what is
-- idle of the envelope's own lease; what may be recalled from others' leases.
create type lease_plan as (
  limit_id uuid, starts_at timestamptz, ends_at timestamptz, measure text, cap bigint, spent bigint, held bigint,
  lent bigint, leases bigint, lease_id uuid, idle bigint, need bigint, recallable bigint
);

-- `p_leases`: the leases that are locked, and so may be recalled.
create function plan_leases(p_limits uuid[], p_envelope uuid, p_leases uuid[], p_amount bigint, p_tokens bigint,
  p_at timestamptz) returns setof lease_plan
language sql stable as $$
  select u.id, w.starts_at, w.ends_at, u.measure, u.cap, (w.used + f.late + s.used)::bigint, s.held::bigint,
    (w.used + f.late + s.leased)::bigint, s.leases, own.id, coalesce(own.leased - own.used - own.held, 0),
    limit_need(u.measure, p_amount, p_tokens, 1), s.recallable::bigint
  from usage_limit u
  join limit_window w on w.limit_id = u.id and w.starts_at = window_start(u.period, u.time_zone, p_at)
  left join lease own on own.envelope_id = p_envelope and own.limit_id = u.id and own.starts_at = w.starts_at
  cross join lateral (
    select coalesce(sum(l.used), 0) as used, coalesce(sum(l.held), 0) as held, coalesce(sum(l.leased), 0) as leased,
      count(*) as leases, coalesce(sum(l.leased - l.used - l.held) filter (where l.id = any(p_leases) and l.envelope_id <> p_envelope), 0)
        as recallable
    from lease l where l.limit_id = u.id and l.starts_at = w.starts_at
  ) s
  cross join lateral (
    select coalesce(sum(l.late), 0) as late from folded_lease l
    where l.limit_id = u.id and l.starts_at = w.starts_at and l.late <> 0
  ) f
  where u.id = any(p_limits) and u.retired_at is null
$$;

-- Makes, in their order, the windows that are not there yet, and locks them all.
create function lock_windows(p_limits uuid[], p_at timestamptz) returns void
language plpgsql as $$
declare
  item record;
begin
  for item in
    select u.id, u.period, u.time_zone, window_start(u.period, u.time_zone, p_at) as starts_at
    from usage_limit u where u.id = any(p_limits) order by u.id
  loop
    insert into limit_window (limit_id, starts_at, ends_at)
      values (item.id, item.starts_at, window_end(item.period, item.time_zone, item.starts_at)) on conflict do nothing;
    perform from limit_window w where w.limit_id = item.id and w.starts_at = item.starts_at for no key update;
  end loop;
end
$$;

-- Lends to an envelope what a hold needs of every limit that binds it: of all of them or of none.
-- p_item: {hold_id, call_id, attempt, run_id, envelope_id, amount, tokens, owner, plan}. Answers: again (it is lent, or
-- things have moved: try the hold again) | busy (it would fit if what is held came back unused; nothing is written) |
-- exhausted (it would not; stored as a refusal, which closes the attempt for ever) | frozen | closing | closed.
create function refill_leases(p_project uuid, p_account uuid, p_item jsonb) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
#variable_conflict use_column
declare
  item record;
  v_now timestamptz := clock_timestamp();
  v_pocket account;
  v_limits uuid[];
  v_scarce uuid[];
  v_leases uuid[];
  v_plans lease_plan[];
begin
  select i.* into item from jsonb_to_record(p_item) as i(hold_id uuid, call_id uuid, attempt integer, run_id uuid,
    envelope_id uuid, amount numeric, tokens numeric);
  -- `post` says by name what is wrong with it.
  if not coalesce(item.amount between 0 and 1000000000000000 and item.tokens between 0 and 1000000000000000, false) then
    return 'again';
  end if;
  select array_agg(u.id) into v_limits
  from account a
  join envelope e on e.id = a.envelope_id
  join call c on c.id = item.call_id and c.project_id = p_project and c.envelope_id = e.id
  join usage_limit u on u.subject_id = any(e.subjects) and u.retired_at is null
    and u.organisation_id = e.subjects[1] and (u.project_id is null or u.project_id = e.project_id)
    and (u.currency is null or u.currency = a.currency)
    and (u.step is null or c.path = u.step or starts_with(c.path, u.step || '/'))
  where a.id = p_account and a.project_id = p_project and a.kind = 'pocket' and a.envelope_id = item.envelope_id
    and c.run_id is not distinct from item.run_id;
  perform lock_windows(v_limits, v_now);
  select * into v_pocket from account where id = p_account and project_id = p_project and kind = 'pocket'
    for no key update;
  if exists (select from refusal r where r.hold_id = item.hold_id and r.project_id = p_project) then
    return 'exhausted';
  end if;
  if v_pocket.gate <> 'open' then return v_pocket.gate; end if;
  if v_limits is null or exists (select from attempt a where a.call_id = item.call_id and a.number = item.attempt) then
    return 'again';
  end if;
  select array_agg(s.limit_id) into v_scarce
    from plan_leases(v_limits, v_pocket.envelope_id, '{}', item.amount::bigint, item.tokens::bigint, v_now) s
    where s.idle + s.cap - s.lent < s.need;
  -- The envelope's own leases, and all that might be recalled: nothing below touches any other.
  select coalesce(array_agg(locked.id), '{}') into v_leases from (
    select l.id from lease l join usage_limit u on u.id = l.limit_id
    where l.limit_id = any(v_limits) and l.starts_at = window_start(u.period, u.time_zone, v_now)
      and (l.envelope_id = v_pocket.envelope_id or l.limit_id = any(v_scarce) and l.leased > l.used + l.held)
    order by l.id for no key update of l
  ) locked;
  v_plans := array(
    select s from plan_leases(v_limits, v_pocket.envelope_id, v_leases, item.amount::bigint, item.tokens::bigint, v_now) s
  );
  if exists (select from unnest(v_plans) s where s.need > 0 and s.cap - s.spent < s.need) then
    perform refuse_for_limit(v_pocket, p_item, v_plans);
    return 'exhausted';
  end if;
  if exists (select from unnest(v_plans) s where s.need > 0 and s.cap - s.spent - s.held < s.need) then
    return 'busy';
  end if;
  -- What is missing has become idle in somebody's lease since the locks were taken.
  if exists (select from unnest(v_plans) s where s.need > s.idle and s.idle + s.cap - s.lent + s.recallable < s.need) then
    return 'again';
  end if;
  perform lend(v_pocket, v_plans, v_leases);
  return 'again';
end
$$;

-- How much to lend of what is available to an envelope that needs some. Until a lease is used up, the envelope's holds
-- lock nothing but itself: so four times the need, and if that is more a 64th of what is there, less the more leases the
-- window has. Smaller slices mean that a refill, which waits for the window, comes every few calls; larger ones that
-- others soon find the cap lent out and recall. It is a share of the rest and not of the cap: slices shrink as the cap
-- comes near. With a constant share the thousandth envelope would find a ten-millionth of the cap; so it finds a sixth.
create function lease_slice(p_need bigint, p_available bigint, p_leases bigint) returns bigint
language sql immutable as $$
  select greatest(0, least(p_available, greatest(4 * p_need, p_available / (64 + 2 * p_leases))))
$$;

-- Writes what `refill_leases` has found to fit. What was never lent goes first, then others' idle parts, largest first.
create function lend(p_pocket account, p_plans lease_plan[], p_leases uuid[]) returns void
language plpgsql as $$
declare
  item record;
begin
  for item in
    select s.*, s.cap - s.lent as room, lease_slice(s.need,
      s.cap - s.lent + case when s.idle + s.cap - s.lent < s.need then s.recallable else 0 end, s.leases) as slice
    from unnest(p_plans) s where s.lease_id is null or s.idle < s.need
  loop
    if item.need > item.idle and item.slice > item.room then
      perform take_back(p_leases, item.limit_id, p_pocket.envelope_id, item.slice - item.room);
    end if;
    insert into lease as l (project_id, limit_id, starts_at, envelope_id, leased)
      values (p_pocket.project_id, item.limit_id, item.starts_at, p_pocket.envelope_id, item.slice)
      on conflict (envelope_id, limit_id, starts_at)
      do update set leased = l.leased + excluded.leased, recalled = false;
  end loop;
end
$$;

-- Takes back idle parts of locked leases of one limit, largest first, but for those of one envelope.
create function take_back(p_leases uuid[], p_limit uuid, p_but uuid, p_amount bigint) returns void
language sql as $$
  update lease l set leased = l.leased - r.taken from (
    select o.id, least(o.idle, p_amount - (sum(o.idle) over w - o.idle))::bigint as taken
    from (
      select x.id, x.leased - x.used - x.held as idle from lease x
      where x.id = any(p_leases) and x.limit_id = p_limit and x.envelope_id is distinct from p_but
    ) o window w as (order by o.idle desc, o.id)
  ) r where l.id = r.id and r.taken > 0
$$;

-- Stores why a hold will never fit: for the tightest of the limits that it exceeds, the one with the least room for what
-- is needed of it. Of two as tight it is the one that resets later: the other would let nothing pass either.
create function refuse_for_limit(p_pocket account, p_item jsonb, p_plans lease_plan[]) returns void
language plpgsql as $$
declare
  item record;
  tightest record;
begin
  select i.* into item from jsonb_to_record(p_item) as i(hold_id uuid, call_id uuid, attempt integer, run_id uuid,
    amount bigint, plan jsonb);
  select s.*, greatest(0, s.cap - s.spent - s.held) as free, u.scope, u.step into tightest
    from unnest(p_plans) s join usage_limit u on u.id = s.limit_id
    where s.need > 0 and s.cap - s.spent < s.need
    order by (s.cap - s.spent - s.held)::numeric / s.need, s.ends_at desc nulls first, s.limit_id limit 1;
  insert into refusal (hold_id, project_id, run_id, envelope_id, account_id, call_id, attempt, bound, asked, free, plan,
      limit_id, measure, cap, spent, held, resets_at)
    values (item.hold_id, p_pocket.project_id, item.run_id, p_pocket.envelope_id, p_pocket.id, item.call_id, item.attempt,
      'limit', tightest.need, tightest.free, item.plan, tightest.limit_id, tightest.measure, tightest.cap, tightest.spent,
      tightest.held, tightest.ends_at);
  if item.run_id is null then return; end if;
  insert into event (project_id, run_id, kind, data) values (p_pocket.project_id, item.run_id, 'attempt.refused',
    jsonb_build_object('callId', item.call_id, 'attempt', item.attempt, 'route', item.plan->>'route',
      'balanceClass', p_pocket.balance_class, 'currency', p_pocket.currency, 'askedNano', item.amount::text,
      'freeNano', case tightest.measure when 'money' then tightest.free
        else p_pocket.posted_credit - p_pocket.posted_debit - p_pocket.pending_debit end::text,
      'limit', jsonb_build_object('limitId', tightest.limit_id, 'scope', tightest.scope, 'step', tightest.step,
        'measure', tightest.measure, 'cap', tightest.cap::text, 'spent', tightest.spent::text,
        'held', tightest.held::text, 'asked', tightest.need::text, 'free', tightest.free::text,
        'resetsAt', tightest.ends_at)));
end
$$;

-- Sets a limit. It counts from now on: holds that are open already, and what was spent before, are not in it.
-- p_project null: anywhere in the organisation. p_limit: {id, scope, subject_id, step, measure, currency, period,
-- time_zone, cap}. The subject of a step limit is a project, a key or a run, and the step the first part of its calls'
-- paths. Verdicts: set | unknown_subject | unknown_time_zone | invalid_limit.
create function set_limit(p_organisation uuid, p_project uuid, p_limit jsonb, p_by uuid) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  item record;
  v_project uuid;
begin
  select i.* into item from jsonb_to_record(p_limit) as i(id uuid, scope text, subject_id uuid, step text, measure text,
    currency text, period text, time_zone text, cap bigint);
  if item.cap is null or item.cap not between 0 and 1000000000000000
    or item.step !~ '^[^/]+(/[^/]+)*$' or length(item.step) > 200 then
    return 'invalid_limit';
  end if;
  if not exists (select from pg_timezone_names z where z.name = item.time_zone) then return 'unknown_time_zone'; end if;
  if item.scope = 'organisation' then
    if p_project is not null or item.subject_id <> p_organisation then return 'unknown_subject'; end if;
  else
    select p.id into v_project
    from (
      select id as project_id from project where id = item.subject_id and item.scope in ('project', 'step')
      union all select k.project_id from api_key k where k.id = item.subject_id and item.scope in ('key', 'step')
      union all select r.project_id from run r where r.id = item.subject_id and item.scope in ('run', 'step')
    ) s join project p on p.id = s.project_id and p.organisation_id = p_organisation
    where p_project is null or p.id = p_project;
    if not found then return 'unknown_subject'; end if;
  end if;
  begin
    insert into usage_limit (id, organisation_id, project_id, scope, subject_id, step, measure, currency, period,
        time_zone, cap, set_by)
      values (item.id, p_organisation, v_project, item.scope, item.subject_id, item.step, item.measure, item.currency,
        item.period, item.time_zone, item.cap, p_by);
  exception when check_violation or not_null_violation then return 'invalid_limit';
  end;
  insert into limit_change (organisation_id, limit_id, change, cap, api_key_id)
    values (p_organisation, item.id, 'set', item.cap, p_by);
  return 'set';
end
$$;

-- Changes a cap, from its commit on. A lowered one is in force at once: all idle parts of leases are recalled, so that
-- what is lent is what was used and is held. Locks the window of now and the one after it, besides all that have not
-- ended: no refill can make another meanwhile that this does not see, for no transaction lasts as long as a window.
-- p_project null: anywhere in the organisation. Verdicts: changed | unknown_limit | retired | invalid_cap.
create function change_limit_cap(p_organisation uuid, p_project uuid, p_limit uuid, p_cap bigint, p_by uuid)
returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_limit usage_limit;
  v_now timestamptz := clock_timestamp();
  v_leases uuid[];
begin
  if p_cap is null or p_cap not between 0 and 1000000000000000 then return 'invalid_cap'; end if;
  select * into v_limit from usage_limit where id = p_limit and organisation_id = p_organisation
    and (p_project is null or project_id = p_project);
  if not found then return 'unknown_limit'; end if;
  insert into limit_window (limit_id, starts_at, ends_at)
    select p_limit, w.starts_at, window_end(v_limit.period, v_limit.time_zone, w.starts_at)
    from (
      select window_start(v_limit.period, v_limit.time_zone, v_now) as starts_at
      union select window_end(v_limit.period, v_limit.time_zone, window_start(v_limit.period, v_limit.time_zone, v_now))
    ) w where w.starts_at is not null order by w.starts_at on conflict do nothing;
  perform from limit_window where limit_id = p_limit and (ends_at is null or ends_at > v_now)
    order by starts_at for no key update;
  select * into v_limit from usage_limit where id = p_limit for no key update;
  if v_limit.retired_at is not null then return 'retired'; end if;
  if v_limit.cap = p_cap then return 'changed'; end if;
  update usage_limit set cap = p_cap where id = p_limit;
  insert into limit_change (organisation_id, limit_id, change, cap, api_key_id)
    values (p_organisation, p_limit, 'cap', p_cap, p_by);
  if p_cap < v_limit.cap then
    v_leases := array(
      select l.id from lease l join limit_window w on w.limit_id = l.limit_id and w.starts_at = l.starts_at
      where l.limit_id = p_limit and (w.ends_at is null or w.ends_at > v_now) order by l.id for no key update of l
    );
    update lease set leased = used + held, recalled = held > 0 where id = any(v_leases);
  end if;
  return 'changed';
end
$$;

-- From its commit on a limit binds no hold; retiring it again changes nothing. Verdicts: retired | unknown_limit.
create function retire_limit(p_organisation uuid, p_project uuid, p_limit uuid, p_by uuid) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_limit usage_limit;
begin
  select * into v_limit from usage_limit where id = p_limit and organisation_id = p_organisation
    and (p_project is null or project_id = p_project) for no key update;
  if not found then return 'unknown_limit'; end if;
  if v_limit.retired_at is not null then return 'retired'; end if;
  update usage_limit set retired_at = clock_timestamp() where id = p_limit;
  insert into limit_change (organisation_id, limit_id, change, cap, api_key_id)
    values (p_organisation, p_limit, 'retire', v_limit.cap, p_by);
  return 'retired';
end
$$;

-- Folds leases that lend nothing any more (their window is past, their envelope closed or their limit retired, and
-- nothing is held of them) into their windows, and adds what corrections brought late. Takes at most `p_most` of each;
-- what others hold locked is passed over, so that it hides nothing and nobody is waited for: many at once do no harm.
-- Returns how many it folded.
create function fold_leases(p_most integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
#variable_conflict use_column
declare
  v_now timestamptz := clock_timestamp();
  v_idle uuid[];
  v_late uuid[];
  v_folded integer;
begin
  v_idle := array(
    select l.id from lease l join limit_window w on w.limit_id = l.limit_id and w.starts_at = l.starts_at
    join usage_limit u on u.id = l.limit_id join envelope e on e.id = l.envelope_id
    where l.held = 0 and (w.ends_at <= v_now or e.gate = 'closed' or u.retired_at is not null)
    limit p_most for no key update of w, l skip locked
  );
  v_late := array(
    select l.id from folded_lease l join limit_window w on w.limit_id = l.limit_id and w.starts_at = l.starts_at
    where l.late <> 0 limit p_most for no key update of w, l skip locked
  );
  with gone as (
    delete from lease where id = any(v_idle) and held = 0 returning *
  ), kept as (
    insert into folded_lease (id, project_id, limit_id, starts_at, envelope_id, used)
    select id, project_id, limit_id, starts_at, envelope_id, used from gone
  ), due as (
    select limit_id, starts_at, used from gone
    union all select limit_id, starts_at, late from folded_lease where id = any(v_late)
  ), folded as (
    update limit_window w set used = w.used + d.used
    from (select limit_id, starts_at, sum(used)::bigint as used from due group by limit_id, starts_at) d
    where w.limit_id = d.limit_id and w.starts_at = d.starts_at
  ), drained as (
    update folded_lease set late = 0 where id = any(v_late)
  )
  select count(*) into v_folded from gone;
  return v_folded;
end
$$;

-- Recalls what is idle in windows of which more is lent than the cap, because an attempt truly used more than it held.
-- A settlement cannot do it: it may not wait for a window. Takes at most `p_most` windows, and none that others hold.
create function recall_leases(p_most integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
#variable_conflict use_column
declare
  item record;
  v_limits uuid[];
  v_starts timestamptz[];
  v_leases uuid[];
  v_recalled integer := 0;
begin
  select array_agg(w.limit_id), array_agg(w.starts_at) into v_limits, v_starts from (
    select w.limit_id, w.starts_at from limit_window w
    where (w.limit_id, w.starts_at) in (
      select o.limit_id, o.starts_at from limit_window o
      join usage_limit u on u.id = o.limit_id and u.retired_at is null
      join lease l on l.limit_id = o.limit_id and l.starts_at = o.starts_at
      where o.ends_at is null or o.ends_at > clock_timestamp()
      group by o.limit_id, o.starts_at, u.cap
      having o.used + sum(l.leased) > u.cap and bool_or(l.leased > l.used + l.held or l.held > 0 and not l.recalled)
      limit p_most
    ) order by w.limit_id, w.starts_at for no key update skip locked
  ) w;
  v_leases := array(
    select l.id from lease l join unnest(v_limits, v_starts) w(limit_id, starts_at)
      on w.limit_id = l.limit_id and w.starts_at = l.starts_at order by l.id for no key update of l
  );
  for item in
    select w.limit_id, w.used + sum(l.leased) - u.cap as excess, sum(l.leased - l.used - l.held) as idle,
      array_agg(l.id) as leases
    from limit_window w join usage_limit u on u.id = w.limit_id
    join lease l on l.limit_id = w.limit_id and l.starts_at = w.starts_at and l.id = any(v_leases)
    group by w.limit_id, w.starts_at, u.cap having w.used + sum(l.leased) > u.cap
  loop
    perform take_back(item.leases, item.limit_id, null, least(item.excess, item.idle)::bigint);
    update lease set recalled = true where id = any(item.leases) and item.excess > item.idle and held > 0;
    v_recalled := v_recalled + 1;
  end loop;
  return v_recalled;
end
$$;

-- Changes what leases of an attempt count, outside of the hot path. The caller holds the pocket; what was held comes free.
-- Leases that were folded meanwhile count too: nothing is held of them.
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
  perform from folded_lease where id = any(p_leases) order by id for no key update;
  update folded_lease l set used = greatest(0, l.used + s.used), late = l.late + greatest(-l.used, s.used)
  from (
    select y.id, limit_need(u.measure, p_used_amount, p_used_tokens, p_used_calls) as used
    from folded_lease y join usage_limit u on u.id = y.limit_id where y.id = any(p_leases)
  ) s where l.id = s.id and s.used <> 0;
end
$$;

grant execute on function refill_leases, set_limit, change_limit_cap, retire_limit, fold_leases, recall_leases
  to purser_app;
revoke execute on function refill_leases, set_limit, change_limit_cap, retire_limit, fold_leases, recall_leases,
  plan_leases, lock_windows, lease_slice, lend, take_back, refuse_for_limit, settle_leases, return_idle from public;
