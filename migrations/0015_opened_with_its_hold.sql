-- A call is opened in the commit of its first hold, an answer may be used again where both calls chose so, and what a
-- provider calls a request is kept as soon as it is known.

-- The answer of another call of the project to the same request: it has no attempt of its own, and cost nothing.
alter table call add column reused_from uuid;
alter table call drop constraint call_check;
alter table call add constraint call_answered check (
  (state = 'answered') = (answer_id is not null)
  and (answer_attempt is not null) = (state = 'answered' and reused_from is null)
);

-- Answers that may be used again: only of calls that chose it.
create table reusable_answer (
  project_id uuid not null references project,
  digest bytea not null,
  answered_at timestamptz not null default clock_timestamp(),
  call_id uuid not null,
  answer_id uuid not null,
  primary key (project_id, digest, call_id)
);

grant select, insert on reusable_answer to purser_app;

create type opened_call as (
  id uuid, project_id uuid, run_id uuid, envelope_id uuid, api_key_id uuid, path text, digest bytea, model text,
  catalog_version integer, request_id uuid, request jsonb
);

-- Opens calls with their requests, unless they are open already. Answers those that were opened before with another
-- version of the catalog: they keep that one. Locks requests by id, then calls by id, before anything else of a batch.
create function open_calls(p_calls jsonb) returns uuid[]
language plpgsql as $$
declare
  v_calls opened_call[];
  v_opened bigint;
begin
  v_calls := array(select c from jsonb_populate_recordset(null::opened_call, p_calls) c);
  insert into payload (id, project_id, run_id, kind, body)
    select c.request_id, c.project_id, c.run_id, 'request', c.request from unnest(v_calls) c order by c.request_id
    on conflict do nothing;
  insert into call (id, project_id, run_id, envelope_id, api_key_id, path, digest, model, catalog_version, request_id)
    select c.id, c.project_id, c.run_id, c.envelope_id, c.api_key_id, c.path, c.digest, c.model, c.catalog_version,
      c.request_id
    from unnest(v_calls) c order by c.id
    on conflict do nothing;
  get diagnostics v_opened = row_count;
  if v_opened = cardinality(v_calls) then return '{}'; end if;
  return array(
    select c.id from unnest(v_calls) c
    cross join lateral (select x.catalog_version from call x where x.id = c.id limit 1) x
    where x.catalog_version <> c.catalog_version
  );
end
$$;

-- As in 0013, and before everything else it opens calls.
-- p_calls: [opened_call], of holds in p_reserves.
-- p_reserves: one more verdict: reopened (its call began with another version of the catalog than this hold was planned
-- with: nothing is written, plan again with that one).
drop function post(uuid, uuid[], jsonb, jsonb, boolean);
create function post(p_instance uuid, p_accounts uuid[], p_calls jsonb, p_settles jsonb, p_reserves jsonb, p_again boolean,
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
  v_others uuid[] := '{}';
  v_reopened odd_verdict[] := '{}';
  v_odd odd_verdict[];
begin
  -- What needs no lock comes before the locks: meanwhile another batch may have the same pockets.
  if p_settles is not null then
    v_settles := array(select i from jsonb_populate_recordset(null::settle_item, p_settles) i);
  end if;
  if p_reserves is not null then
    v_reserves := array(select i from jsonb_populate_recordset(null::reserve_item, p_reserves) i);
  end if;
  if p_calls is not null then v_others := open_calls(p_calls); end if;
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
    if v_others <> '{}' then
      v_reopened := array(
        select row(r.ord, r.hold_id, 'reopened', false)::odd_verdict from unnest(v_reserves) r
        where r.call_id = any(v_others)
      );
      v_reserves := array(select r from unnest(v_reserves) r where r.call_id <> all(v_others) order by r.ord);
    end if;
    v_odd := post_reserves(p_instance, v_pockets, v_reserves, v_now);
    granted := cardinality(v_reserves) - cardinality(v_odd);
    odd := odd || v_reopened || v_odd;
  end if;
end
$$;

-- What a provider calls a request, while nothing else is known of it: whoever finds the attempt lost can ask for it.
create function note_request_id(p_project uuid, p_call uuid, p_number integer, p_id text) returns void
language sql security definer set search_path = public, pg_temp as $$
  update attempt a set detail = jsonb_build_object('providerRequestId', p_id)
    where a.call_id = p_call and a.number = p_number and a.project_id = p_project and a.state = 'sent'
$$;

-- That a provider was asked what became of a request, where its answer changed nothing.
create function note_look_up(p_project uuid, p_call uuid, p_number integer, p_answer text) returns void
language sql security definer set search_path = public, pg_temp as $$
  update attempt a set detail = a.detail || jsonb_build_object('lookedUp', p_answer)
    where a.call_id = p_call and a.number = p_number and a.project_id = p_project and a.state = 'resolved'
$$;

-- Attempts that a provider can be asked about: what they cost is not known for sure.
create index attempt_to_look_up on attempt (resolved_at)
  where outcome in ('lost', 'cut_stream', 'timeout', 'aborted', 'network_after_send')
    and detail->>'providerRequestId' is not null and not detail ? 'lookedUp';

grant execute on function post, note_request_id, note_look_up to purser_app;
revoke execute on function post, open_calls, note_request_id, note_look_up from public;
