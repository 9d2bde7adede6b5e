-- What processes share about an upstream model of a provider: its circuit, how far it is distrusted, and the room that
-- its limits leave. It belongs to the installation, as the catalog does. And what a key may use.

alter table api_key add column constraints jsonb;

create table route_state (
  provider text not null,
  upstream_model text not null,
  -- Counts the changes of the circuit, whoever makes them: nobody acts on what was true before one.
  epoch integer not null default 0,
  -- In a row, over all processes.
  failures integer not null default 0 check (failures >= 0),
  last_outcome text,
  last_message text,
  last_failed_at timestamptz,
  -- The circuit: closed without an opening; a probe may be sent once `open_until` is over.
  opened_at timestamptz,
  open_until timestamptz,
  openings integer not null default 0 check (openings >= 0),
  probe_id uuid,
  probe_by uuid,
  probe_since timestamptz,
  -- The provider asked to be left alone until then.
  paused_until timestamptz,
  distrust_ppm integer not null default 0 check (distrust_ppm between 0 and 99000000),
  distrusted_at timestamptz,
  primary key (provider, upstream_model),
  check ((opened_at is null) = (open_until is null)),
  check ((opened_at is null) = (openings = 0)),
  check ((probe_id is null) = (probe_by is null) and (probe_id is null) = (probe_since is null)),
  check (probe_id is null or opened_at is not null),
  check ((distrust_ppm = 0) = (distrusted_at is null))
) with (fillfactor = 50);

-- Room of a route's limits that a process may use without asking. What is left of it when it expires counts as used then,
-- because its process may have used it without telling; slots are a process's as long as its instance lives.
create table route_lease (
  provider text not null,
  upstream_model text not null,
  instance_id uuid not null,
  requests bigint not null check (requests >= 0),
  tokens bigint not null check (tokens >= 0),
  slots bigint not null check (slots >= 0),
  expires_at timestamptz not null,
  -- First come, first served: what frees up is kept for who waits longest, until it should have come back for it.
  waiting_since timestamptz,
  waiting_until timestamptz,
  waiting_tokens bigint not null default 0,
  primary key (provider, upstream_model, instance_id)
) with (fillfactor = 50);

-- What was used, by second (of the epoch, rounded up): it counts for a window after that.
create table route_use (
  provider text not null,
  upstream_model text not null,
  slot bigint not null,
  requests bigint not null check (requests >= 0),
  tokens bigint not null check (tokens >= 0),
  primary key (provider, upstream_model, slot)
) with (fillfactor = 50);

-- Who has closed a circuit, or trusted a route again.
create table route_reset (
  id uuid primary key,
  provider text not null,
  upstream_model text not null,
  what text not null check (what in ('circuit', 'distrust')),
  organisation_id uuid not null references organisation,
  api_key_id uuid not null,
  before jsonb not null,
  reset_at timestamptz not null default clock_timestamp()
);

create index route_reset_by_route on route_reset (provider, upstream_model, reset_at desc);

create trigger route_reset_is_append_only before update or delete on route_reset
  for each row execute function refuse_change();
create trigger route_reset_keeps_its_rows before truncate on route_reset
  for each statement execute function refuse_change();

create function route_window_seconds() returns integer language sql immutable as 'select 60';

-- A process that is silent for longer has no room any more.
create function route_lease_ms() returns integer language sql immutable as 'select 5000';

create function is_living(p_instance uuid) returns boolean language sql stable as $$
  select exists (select from instance where id = p_instance and lease_until > clock_timestamp())
$$;

create function count_route_use(p_provider text, p_model text, p_slot bigint, p_requests bigint, p_tokens bigint)
returns void language sql as $$
  insert into route_use as u (provider, upstream_model, slot, requests, tokens)
  select p_provider, p_model, p_slot, p_requests, p_tokens where p_requests > 0 or p_tokens > 0
  on conflict (provider, upstream_model, slot) do update
    set requests = u.requests + excluded.requests, tokens = u.tokens + excluded.tokens
$$;

-- What is left of leases that have expired counts as used when they did. The caller has locked the route.
create function lapse_route_leases(p_provider text, p_model text, p_now timestamptz) returns void
language plpgsql as $$
begin
  perform count_route_use(p_provider, p_model, ceil(extract(epoch from l.expires_at))::bigint, l.requests, l.tokens)
    from route_lease l where l.provider = p_provider and l.upstream_model = p_model and l.expires_at <= p_now;
  update route_lease l set requests = 0, tokens = 0
    where l.provider = p_provider and l.upstream_model = p_model and l.expires_at <= p_now
      and (l.requests > 0 or l.tokens > 0);
  delete from route_lease l
    where l.provider = p_provider and l.upstream_model = p_model and l.expires_at <= p_now
      and not is_living(l.instance_id);
  delete from route_use u
    where u.provider = p_provider and u.upstream_model = p_model
      and u.slot + route_window_seconds() <= extract(epoch from p_now);
end
$$;

-- How long until what was used frees what is missing, in milliseconds: at most a window.
create function route_wait_ms(p_provider text, p_model text, p_requests bigint, p_tokens bigint, p_now timestamptz)
returns integer language sql as $$
  select least(route_window_seconds() * 1000, greatest(20,
    coalesce(ceil((min(c.slot) + route_window_seconds() - extract(epoch from p_now)) * 1000), 1000)))::integer
  from (
    select u.slot, sum(u.requests) over (order by u.slot) as requests, sum(u.tokens) over (order by u.slot) as tokens
    from route_use u where u.provider = p_provider and u.upstream_model = p_model
  ) c where c.requests >= p_requests and c.tokens >= p_tokens
$$;

create type route_grant as (
  -- How many of the asks fit, first in first out.
  granted integer,
  -- What was lent besides what was kept.
  requests double precision, tokens double precision,
  slots integer,
  -- The second that what was spent counts in; null when it had counted already, with the lapsed lease it came from.
  slot double precision,
  -- Of the first ask that did not fit.
  wait_ms integer, tokens_only boolean,
  -- Others wait: what is not used is to be given back.
  crowded boolean,
  valid_ms integer
);

-- One process's turn at the room of one route, which the caller has locked. It tells what it has spent of its lease and
-- what it keeps, gives back what attempts did not use, and asks for room for attempts that wait and for those to come.
create function lease_route_room(p_instance uuid, p_provider text, p_model text, p_room jsonb) returns route_grant
language plpgsql as $$
declare
  -- Where there is no limit.
  k_plenty constant bigint := 1000000000000000;
  room record;
  mine route_lease;
  others record;
  answer route_grant;
  v_now timestamptz := clock_timestamp();
  v_slot bigint := ceil(extract(epoch from v_now));
  v_alive_ms integer;
  v_holds boolean;
  v_free_requests bigint;
  v_free_tokens bigint;
  v_free_slots bigint;
  v_asked bigint;
  v_asked_tokens bigint;
  v_requests bigint;
  v_tokens bigint;
  v_slots bigint;
  v_spare_slots bigint;
  v_waits boolean;
begin
  select r.* into room from jsonb_to_record(p_room) as r(rpm bigint, tpm bigint, concurrency bigint, abandons boolean,
    spent_requests bigint, spent_tokens bigint, over_tokens bigint, keep_requests bigint, keep_tokens bigint,
    in_flight bigint, keep_slots bigint, back jsonb, asks bigint[], ahead_requests bigint, ahead_tokens bigint,
    ahead_slots bigint);
  select floor(extract(epoch from i.lease_until - v_now) * 1000) into v_alive_ms from instance i where i.id = p_instance;
  v_alive_ms := greatest(0, coalesce(v_alive_ms, 0));
  perform lapse_route_leases(p_provider, p_model, v_now);
  select * into mine from route_lease l
    where l.provider = p_provider and l.upstream_model = p_model and l.instance_id = p_instance;
  v_holds := found and mine.expires_at > v_now and not room.abandons;
  if v_holds then
    room.spent_requests := least(room.spent_requests, mine.requests);
    room.spent_tokens := least(room.spent_tokens, mine.tokens);
    room.keep_requests := least(room.keep_requests, mine.requests - room.spent_requests);
    room.keep_tokens := least(room.keep_tokens, mine.tokens - room.spent_tokens);
    perform count_route_use(p_provider, p_model, v_slot, room.spent_requests, room.spent_tokens + room.over_tokens);
    answer.slot := v_slot;
  else
    -- Who abandons a lease does not know what became of it: all of it counts.
    perform count_route_use(p_provider, p_model, v_slot, coalesce(mine.requests, 0),
      coalesce(mine.tokens, 0) + room.over_tokens);
    room.keep_requests := 0;
    room.keep_tokens := 0;
  end if;
  update route_use u set requests = greatest(0, u.requests - b.requests), tokens = greatest(0, u.tokens - b.tokens)
    from jsonb_to_recordset(room.back) as b(slot bigint, requests bigint, tokens bigint)
    where u.provider = p_provider and u.upstream_model = p_model and u.slot = b.slot;

  -- Who waits longer is served first; everybody who waits came before somebody who does not.
  v_waits := coalesce(mine.waiting_until > v_now, false);
  select coalesce(sum(l.requests), 0)::bigint as requests, coalesce(sum(l.tokens), 0)::bigint as tokens,
      coalesce(sum(l.slots) filter (where l.living), 0)::bigint as slots,
      count(*) filter (where l.living and l.expires_at > v_now) as active, coalesce(bool_or(l.waits), false) as wait,
      count(*) filter (where l.comes_first) as first_requests,
      coalesce(sum(l.waiting_tokens) filter (where l.comes_first), 0)::bigint as first_tokens
    into others
    from (
      select l.*, w.living, w.living and l.waiting_until > v_now as waits,
        w.living and l.waiting_until > v_now and (not v_waits or l.waiting_since < mine.waiting_since) as comes_first
      from route_lease l cross join lateral (select is_living(l.instance_id) as living) w
      where l.provider = p_provider and l.upstream_model = p_model and l.instance_id <> p_instance
    ) l;
  select coalesce(room.rpm, k_plenty) - coalesce(sum(u.requests), 0) - others.requests - others.first_requests
      - room.keep_requests,
    coalesce(room.tpm, k_plenty) - coalesce(sum(u.tokens), 0) - others.tokens - others.first_tokens - room.keep_tokens
    into v_free_requests, v_free_tokens
    from route_use u where u.provider = p_provider and u.upstream_model = p_model;
  v_free_slots := coalesce(room.concurrency, k_plenty) - others.slots - others.first_requests - room.keep_slots;

  v_spare_slots := room.keep_slots - room.in_flight;
  select count(*), coalesce(max(a.tokens), 0) into v_asked, v_asked_tokens
    from (select a.place, sum(a.tokens) over (order by a.place) as tokens
      from unnest(room.asks) with ordinality as a(tokens, place)) a
    where v_alive_ms > 0 and a.place - room.keep_requests <= greatest(0, v_free_requests)
      and a.tokens - room.keep_tokens <= greatest(0, v_free_tokens)
      and a.place - v_spare_slots <= greatest(0, v_free_slots);
  answer.granted := v_asked;
  v_requests := case when room.rpm is null then 0 else greatest(0, v_asked - room.keep_requests) end;
  v_tokens := case when room.tpm is null then 0 else greatest(0, v_asked_tokens - room.keep_tokens) end;
  v_slots := case when room.concurrency is null then 0 else greatest(0, v_asked - v_spare_slots) end;
  v_free_requests := v_free_requests - v_requests;
  v_free_tokens := v_free_tokens - v_tokens;
  v_free_slots := v_free_slots - v_slots;
  v_waits := v_asked < cardinality(room.asks);
  if v_waits then
    select w.* into answer.wait_ms, answer.tokens_only from (
      select case
          when d.slots > 0 then 250
          -- What lies idle elsewhere comes back within a second or two.
          when d.requests <= others.requests and d.tokens <= others.tokens then 500
          else route_wait_ms(p_provider, p_model, d.requests, d.tokens, v_now) end,
        d.slots <= 0 and d.requests <= 0
      from (select 1 - greatest(0, room.keep_requests - v_asked) - v_free_requests as requests,
        room.asks[v_asked + 1] - greatest(0, room.keep_tokens - v_asked_tokens) - v_free_tokens as tokens,
        1 - greatest(0, v_spare_slots - v_asked) - v_free_slots as slots) d
    ) w;
  elsif v_alive_ms > 0 and not others.wait then
    -- For those to come: a share of what is free, so that a process more finds some too.
    v_requests := v_requests + greatest(0, least(room.ahead_requests - room.keep_requests,
      v_free_requests / (2 * (others.active + 1))));
    v_tokens := v_tokens + greatest(0, least(room.ahead_tokens - room.keep_tokens,
      v_free_tokens / (2 * (others.active + 1))));
    v_slots := v_slots + greatest(0, least(room.ahead_slots - room.keep_slots,
      v_free_slots / (2 * (others.active + 1))));
  end if;
  answer.requests := v_requests;
  answer.tokens := v_tokens;
  answer.slots := room.keep_slots + v_slots;
  answer.crowded := others.wait;
  answer.valid_ms := least(route_lease_ms(), v_alive_ms);
  if not v_waits and room.keep_requests + v_requests = 0 and room.keep_tokens + v_tokens = 0 and answer.slots = 0 then
    delete from route_lease l
      where l.provider = p_provider and l.upstream_model = p_model and l.instance_id = p_instance;
    return answer;
  end if;
  insert into route_lease (provider, upstream_model, instance_id, requests, tokens, slots, expires_at, waiting_since,
      waiting_until, waiting_tokens)
    values (p_provider, p_model, p_instance, room.keep_requests + v_requests, room.keep_tokens + v_tokens,
      answer.slots, v_now + route_lease_ms() * interval '1 millisecond',
      -- Who got something goes to the end of the queue.
      case when v_waits then case when v_asked = 0 and mine.waiting_until > v_now then mine.waiting_since else v_now end end,
      case when v_waits then v_now + (answer.wait_ms + 1000) * interval '1 millisecond' end,
      case when v_waits then room.asks[v_asked + 1] else 0 end)
    on conflict (provider, upstream_model, instance_id) do update set requests = excluded.requests,
      tokens = excluded.tokens, slots = excluded.slots, expires_at = excluded.expires_at,
      waiting_since = excluded.waiting_since, waiting_until = excluded.waiting_until,
      waiting_tokens = excluded.waiting_tokens;
  return answer;
end
$$;

-- One process's turn at several routes, in one commit: what it has seen of each, its room, and what is known of each now.
-- p_items: [{provider, upstream_model, report, room}], report and room null where there is nothing to tell or to ask.
-- report: {answered, failures (since the last answer), outcome, message}.
create function route_turn(p_instance uuid, p_items jsonb)
returns table (item integer, epoch integer, failures integer, openings integer, open_ms double precision,
  paused_ms double precision, probe_taken boolean, distrust_ppm integer, room route_grant)
language plpgsql security definer set search_path = public, pg_temp as $$
#variable_conflict use_column
declare
  v_item record;
  v_state route_state;
  v_room route_grant;
  v_now timestamptz;
begin
  for v_item in
    select i.value->>'provider' as provider, i.value->>'upstream_model' as upstream_model, i.value->'report' as report,
      i.value->'room' as room, i.ordinality::integer - 1 as place
    from jsonb_array_elements(p_items) with ordinality i
    order by 1, 2
  loop
    v_room := null;
    v_state := null;
    if jsonb_typeof(v_item.room) = 'object' or jsonb_typeof(v_item.report) = 'object' then
      insert into route_state (provider, upstream_model) select v_item.provider, v_item.upstream_model
        where not exists (select from route_state s
          where s.provider = v_item.provider and s.upstream_model = v_item.upstream_model)
        on conflict do nothing;
      perform from route_state s where s.provider = v_item.provider and s.upstream_model = v_item.upstream_model
        for no key update;
    end if;
    if jsonb_typeof(v_item.report) = 'object' then
      update route_state s set
          failures = least(1000000, case when r.answered then r.failures else s.failures + r.failures end),
          last_outcome = case when r.outcome is null then s.last_outcome else r.outcome end,
          last_message = case when r.outcome is null then s.last_message else r.message end,
          last_failed_at = case when r.outcome is null then s.last_failed_at else clock_timestamp() end
        from jsonb_to_record(v_item.report) as r(answered boolean, failures integer, outcome text, message text)
        where s.provider = v_item.provider and s.upstream_model = v_item.upstream_model;
    end if;
    if jsonb_typeof(v_item.room) = 'object' then
      v_room := lease_route_room(p_instance, v_item.provider, v_item.upstream_model, v_item.room);
    end if;
    select * into v_state from route_state s
      where s.provider = v_item.provider and s.upstream_model = v_item.upstream_model;
    v_now := clock_timestamp();
    return query select v_item.place, coalesce(v_state.epoch, 0), coalesce(v_state.failures, 0),
      coalesce(v_state.openings, 0), extract(epoch from v_state.open_until - v_now)::double precision * 1000,
      extract(epoch from v_state.paused_until - v_now)::double precision * 1000,
      coalesce(is_probed(v_state), false), coalesce(v_state.distrust_ppm, 0), v_room;
  end loop;
end
$$;

-- Whether a probe is out. One whose process died, or that nobody can still be waiting for, is free again: no attempt
-- takes longer than eight minutes.
create function is_probed(p_state route_state) returns boolean language sql stable as $$
  select p_state.probe_id is not null and is_living(p_state.probe_by)
    and p_state.probe_since > clock_timestamp() - interval '10 minutes'
$$;

grant select, insert, update on route_state to purser_app;
grant select on route_lease, route_use to purser_app;
grant select, insert on route_reset to purser_app;
grant execute on function route_turn, is_living, is_probed, route_window_seconds to purser_app;
revoke execute on function route_turn, lease_route_room, lapse_route_leases, count_route_use, route_wait_ms from public;
