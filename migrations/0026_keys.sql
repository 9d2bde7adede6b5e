-- Keys say what they are for, for how long and from where they may be used, and are changed for others without a gap;
-- every administrative change is written down.

alter table api_key
  -- What it opens: the gateway, runs and what they need, reading; of an operator's key, changes and reading.
  add column scopes text[] not null default '{calls,runs,read}',
  -- It opens nothing from then on. Housekeeping revokes it, which sends its money home.
  add column expires_at timestamptz,
  -- Null: from anywhere.
  add column allowed_ips cidr[] check (cardinality(allowed_ips) > 0),
  -- The key that this one takes over from.
  add column rotated_from uuid references api_key,
  -- To the minute.
  add column last_used_at timestamptz;

update api_key set scopes = '{admin,read}' where project_id is null;

alter table api_key add constraint api_key_scopes check (
  cardinality(scopes) > 0
  and scopes <@ case when project_id is null then array['admin', 'read'] else array['calls', 'runs', 'read'] end
);

create index api_key_by_project on api_key (project_id, id desc);
create index api_key_to_expire on api_key (expires_at) where revoked_at is null and expires_at is not null;
create index api_key_rotated_from on api_key (rotated_from) where rotated_from is not null;

-- What a key has lost it does not get back.
create function refuse_regained_rights() returns trigger language plpgsql as $$
begin
  if old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at
    or old.expires_at is not null and coalesce(new.expires_at, 'infinity') > old.expires_at then
    raise exception 'key % is revoked or ends sooner: make another one', old.id using errcode = 'restrict_violation';
  end if;
  return new;
end
$$;

create trigger api_key_regains_nothing before update of revoked_at, expires_at on api_key
  for each row execute function refuse_regained_rights();

-- A key and those that it takes over from, the newest first. What limits any of them limits it, in the same windows: a new
-- secret is no new budget.
create function key_lineage(p_key uuid) returns uuid[]
language sql stable as $$
  with recursive line as (
    select k.id, k.rotated_from, 1 as place from api_key k where k.id = p_key
    union all
    select k.id, k.rotated_from, l.place + 1 from line l join api_key k on k.id = l.rotated_from where l.place < 1000
  )
  select array_agg(l.id order by l.place) from line l
$$;

-- As before; its calls count for all that its key takes over from, too.
create or replace function open_envelope(p_project uuid, p_envelope uuid, p_run uuid, p_key uuid, p_kind text, p_items jsonb)
returns table (reason text, balance_class text, currency text, asked bigint, free bigint)
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_wallet uuid;
begin
  select id into v_wallet from wallet where project_id = p_project;
  if not found then
    return query select 'no_wallet', null::text, null::text, null::bigint, null::bigint; return;
  end if;
  reason := case
    when not exists (select from api_key k where k.id = p_key and k.project_id = p_project) then 'unknown_key'
    when is_foreign_run(p_project, p_run) then 'unknown_run' end;
  if reason is not null then return next; return; end if;
  perform from account a where a.kind = 'wallet' and a.wallet_id = v_wallet order by a.id for no key update;
  if not exists (select from envelope e where e.id = p_envelope)
    and is_same_top_up(p_project, p_envelope, p_items) is not null then
    reason := 'mismatch';
    return next; return;
  end if;
  insert into envelope (id, project_id, wallet_id, run_id, api_key_id, kind, subjects)
    select p_envelope, p_project, v_wallet, p_run, p_key, p_kind,
      array[p.organisation_id, p.id] || key_lineage(p_key) || array_remove(array[p_run], null)
    from project p where p.id = p_project
    on conflict (id) do nothing;
  if not found then
    reason := case when is_same_opening(p_project, p_envelope, p_run, p_key, p_kind, p_items) then null
      else 'envelope_exists' end;
    if reason is not null then return next; end if;
    return;
  end if;
  perform recall_idle(p_project, v_wallet, array[p_envelope], p_items);
  return query select * from fund_envelope(p_project, p_envelope, p_items, true);
end
$$;

-- The same, and a key that has expired gets none either.
create or replace function standing_envelope(p_project uuid, p_key uuid) returns table (refusal text, envelope_id uuid)
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_key api_key;
begin
  select e.id into envelope_id from envelope e
    where e.api_key_id = p_key and e.project_id = p_project and e.kind = 'standing' and e.gate in ('open', 'frozen');
  if found then return next; return; end if;
  -- Who revokes the key waits for this, and then finds the envelope.
  select * into v_key from api_key k where k.id = p_key and k.project_id = p_project for share;
  refusal := case
    when v_key.id is null then 'unknown_key'
    when v_key.revoked_at is not null or v_key.expires_at <= clock_timestamp() then 'revoked_key'
    when not exists (select from wallet w where w.project_id = p_project) then 'no_wallet' end;
  if refusal is null then
    insert into envelope (id, project_id, wallet_id, api_key_id, kind, subjects)
      select uuidv7(), p_project, w.id, p_key, 'standing',
        array[v_key.organisation_id, p_project] || key_lineage(p_key)
      from wallet w where w.project_id = p_project
      on conflict do nothing;
    select e.id into envelope_id from envelope e
      where e.api_key_id = p_key and e.kind = 'standing' and e.gate <> 'closed';
  end if;
  return next;
end
$$;

-- Who changed what of an organisation, written in the transaction of the change.
create table audit_event (
  id uuid primary key default uuidv7(),
  organisation_id uuid not null references organisation,
  -- Null: of the organisation, or of the installation.
  project_id uuid,
  -- Null: the installation itself, as when a key's time is over.
  api_key_id uuid,
  action text not null,
  target text,
  before jsonb,
  after jsonb,
  at timestamptz not null default clock_timestamp()
);

create index audit_event_by_organisation on audit_event (organisation_id, id desc);
create index audit_event_by_project on audit_event (project_id, id desc) where project_id is not null;
create index audit_event_by_target on audit_event (target, id desc) where target is not null;

create trigger audit_event_is_append_only before update or delete on audit_event
  for each row execute function refuse_change();
create trigger audit_event_keeps_its_rows before truncate on audit_event
  for each statement execute function refuse_change();

-- The calls of a key that belong to no run, in time: rows come at its end.
create index call_of_key on call (api_key_id, created_at, id) include (digest) where run_id is null;

revoke all on function key_lineage from public;
grant update (expires_at, last_used_at) on api_key to purser_app;
grant select, insert on audit_event to purser_app;
