-- Who made a key; keys that may make organisations; what is told of calls that belong to no run.

alter table api_key
  -- Null: the installation itself.
  add column made_by uuid references api_key;

update api_key k set made_by = a.api_key_id from audit_event a
  where a.api_key_id is not null
    and (a.action = 'key.create' and a.target = k.id::text or a.action = 'key.rotate' and a.after->>'id' = k.id::text);

-- A key, whom it was made by and whom that was made by, and what each of them takes over from.
create function key_ancestors(p_key uuid) returns uuid[]
language sql stable security definer set search_path = public, pg_temp as $$
  with recursive line as (
    select k.id, k.made_by, k.rotated_from from api_key k where k.id = p_key
    union
    select k.id, k.made_by, k.rotated_from from line l join api_key k on k.id in (l.made_by, l.rotated_from)
  )
  select array_agg(l.id) from line l
$$;

-- Whether a key may decide on what another one asked for: neither comes from the other, and it was there before.
create function may_decide(p_asker uuid, p_decider uuid, p_asked_at timestamptz) returns boolean
language sql stable security definer set search_path = public, pg_temp as $$
  select p_asker is null or not (
    p_asker = any(key_ancestors(p_decider)) or p_decider = any(key_ancestors(p_asker))
    or exists (select from api_key k where k.id = p_decider and k.created_at >= p_asked_at)
  )
$$;

create or replace function keep_decision() returns trigger language plpgsql as $$
begin
  if old.state <> 'waiting' then
    raise exception 'deposit request % is decided', old.id using errcode = 'restrict_violation';
  end if;
  if new.state <> 'waiting' and new.decided_by is not null
    and not may_decide(old.asked_by, new.decided_by, old.created_at) then
    raise exception 'deposit request % is decided by another operator', old.id using errcode = 'restrict_violation';
  end if;
  return new;
end
$$;

-- Organisations are made by whom the installation has made itself, and by whom that has handed it on to.
alter table api_key drop constraint api_key_scopes;
alter table api_key add constraint api_key_scopes check (
  cardinality(scopes) > 0
  and scopes <@ case when project_id is null then array['admin', 'read', 'installation']
    else array['calls', 'runs', 'read'] end
);
update api_key set scopes = scopes || '{installation}' where id = (
  select k.id from api_key k join organisation o on o.id = k.organisation_id
  where k.project_id is null and k.revoked_at is null and 'admin' = any(k.scopes)
  order by o.created_at, k.created_at limit 1
);

alter table organisation
  -- Under which name it is configured, whatever it is called since; null for those that operators made.
  add column configured_as text unique,
  add column changed_at timestamptz not null default clock_timestamp();
update organisation o set configured_as = o.name
  where not exists (select from organisation e where e.name = o.name and (e.created_at, e.id) < (o.created_at, o.id));

-- What happens to calls of keys that belong to no run and is told to webhooks. Numbered with the events of runs: (xid, seq)
-- is one order over both.
create table key_event (
  seq bigint not null default nextval('event_seq_seq'),
  xid xid8 not null default pg_current_xact_id(),
  project_id uuid not null,
  api_key_id uuid not null,
  kind text not null check (kind in ('attempt.refused', 'attempt.settled')),
  data jsonb not null,
  recorded_at timestamptz not null default clock_timestamp(),
  primary key (project_id, xid, seq)
);
create index key_event_of_key on key_event (api_key_id, recorded_at desc);
create index key_event_by_age on key_event (recorded_at);

create trigger key_event_is_append_only before update on key_event for each row execute function refuse_change();

-- A key without money is refused each time it asks: that is told about once a minute, and waits for nobody.
create function tell_refusal_of_key() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_key uuid;
begin
  select e.api_key_id into v_key from envelope e where e.id = new.envelope_id;
  if v_key is null or exists (
    select from key_event t where t.api_key_id = v_key and t.kind = 'attempt.refused'
      and t.recorded_at > clock_timestamp() - interval '1 minute'
  ) then return null; end if;
  insert into key_event (project_id, api_key_id, kind, data)
    select new.project_id, v_key, 'attempt.refused', jsonb_build_object('callId', new.call_id, 'attempt', new.attempt,
      'route', new.plan->>'route', 'balanceClass', a.balance_class, 'currency', a.currency, 'bound', new.bound,
      'measure', coalesce(new.measure, 'money'), 'asked', new.asked::text, 'free', new.free::text,
      'limitId', new.limit_id)
    from account a where a.id = new.account_id;
  return null;
end
$$;
create trigger refusal_of_key_is_told after insert on refusal
  for each row when (new.run_id is null) execute function tell_refusal_of_key();

create function tell_fallback_of_key() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  insert into key_event (project_id, api_key_id, kind, data)
    select new.project_id, e.api_key_id, 'attempt.settled', jsonb_build_object('callId', new.call_id,
      'attempt', new.number, 'route', new.plan->>'route', 'outcome', new.outcome)
    from envelope e where e.id = new.envelope_id and e.api_key_id is not null;
  return null;
end
$$;
-- Attempts that are no fallback, and those of runs, pay a look at their row for it.
create trigger fallback_of_key_is_told after update on attempt
  for each row when (new.run_id is null and old.outcome is null and new.outcome is not null
    and new.plan->>'why' = 'fallback') execute function tell_fallback_of_key();

-- As long as refusals are kept.
create function purge_key_events(p_age interval, p_most integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_rows integer;
begin
  delete from key_event where (project_id, xid, seq) in (
    select t.project_id, t.xid, t.seq from key_event t where t.recorded_at < clock_timestamp() - kept_at_least(p_age)
    order by t.recorded_at limit p_most for update skip locked);
  get diagnostics v_rows = row_count;
  return v_rows;
end
$$;

-- Makes an organisation and its first operator key, and writes that down in its own audit log.
-- p_made: {organisationId, keyId, name, hint, hash}.
create function make_organisation(p_by uuid, p_made jsonb) returns timestamptz
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_now timestamptz := clock_timestamp();
  v_organisation uuid := (p_made->>'organisationId')::uuid;
  v_key uuid := (p_made->>'keyId')::uuid;
begin
  insert into organisation (id, name, created_at) values (v_organisation, p_made->>'name', v_now);
  insert into api_key (id, organisation_id, name, hint, hash, scopes, made_by, created_at)
    values (v_key, v_organisation, 'operator', p_made->>'hint', decode(p_made->>'hash', 'hex'), '{admin,read}', p_by, v_now);
  insert into audit_event (organisation_id, api_key_id, action, target, after)
    values (v_organisation, p_by, 'key.create', v_key::text, jsonb_build_object('id', v_key, 'name', 'operator',
      'hint', p_made->>'hint', 'scopes', array['admin', 'read']));
  return v_now;
end
$$;

-- Refuses, as a bug, what is not asked for with a key of the installation.
create function tenant.check_installer(p_key uuid) returns void language plpgsql as $$
begin
  if not exists (
    select from api_key k where k.id = p_key and k.organisation_id = tenant.organisation() and k.project_id is null
      and 'installation' = any(k.scopes) and k.revoked_at is null
  ) then
    raise exception 'it is with no key of the installation who asks: %', p_key using errcode = 'insufficient_privilege';
  end if;
end
$$;

revoke execute on function key_ancestors, may_decide, keep_decision, tell_refusal_of_key, tell_fallback_of_key,
  purge_key_events, make_organisation, tenant.check_installer from public;
grant execute on function may_decide, purge_key_events to purser_app;
grant select on key_event to purser_app;
grant update (name, changed_at) on organisation to purser_app, purser_tenant;

call tenant.confine('key_event');
call tenant.guard('may_decide(uuid, uuid, timestamptz)', 'check_operator(tenant.organisation())');
call tenant.guard('make_organisation(uuid, jsonb)', 'check_installer($1)');
