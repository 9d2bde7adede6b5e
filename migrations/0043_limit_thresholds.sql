-- Limits have thresholds: percentages of their caps at which webhooks are told.

create function are_percentages(p_list integer[]) returns boolean language sql immutable as $$
  select cardinality(p_list) <= 20 and 1 <= all(p_list) and 100 >= all(p_list)
    and (select count(distinct each) from unnest(p_list) each) = cardinality(p_list)
$$;

-- What an organisation spends is no single project's to hear of.
alter table usage_limit add column thresholds integer[] not null default '{}' check (are_percentages(thresholds)),
  add check (project_id is not null or thresholds = '{}');
create index usage_limit_with_thresholds on usage_limit (project_id) where thresholds <> '{}' and retired_at is null;

drop trigger usage_limit_counts_changes on usage_limit;
create trigger usage_limit_counts_changes before update of cap, thresholds, retired_at on usage_limit
  for each row execute function count_version();

-- Each change says which thresholds there are from then on: a window that is over is told of by those it ended with.
alter table limit_change add column thresholds integer[] not null default '{}',
  drop constraint limit_change_change_check,
  add constraint limit_change_change_check check (change in ('set', 'cap', 'thresholds', 'retire'));

create function note_thresholds() returns trigger language plpgsql as $$
begin
  new.thresholds := (select u.thresholds from usage_limit u where u.id = new.limit_id);
  return new;
end
$$;
create trigger limit_change_notes_thresholds before insert on limit_change
  for each row execute function note_thresholds();

-- As in 0009, with thresholds.
create or replace function set_limit(p_organisation uuid, p_project uuid, p_limit jsonb, p_by uuid) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  item record;
  v_project uuid;
begin
  select i.* into item from jsonb_to_record(p_limit) as i(id uuid, scope text, subject_id uuid, step text, measure text,
    currency text, period text, time_zone text, cap bigint, thresholds integer[]);
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
        time_zone, cap, thresholds, set_by)
      values (item.id, p_organisation, v_project, item.scope, item.subject_id, item.step, item.measure, item.currency,
        item.period, item.time_zone, item.cap, coalesce(item.thresholds, '{}'), p_by);
  exception when check_violation or not_null_violation then return 'invalid_limit';
  end;
  insert into limit_change (organisation_id, limit_id, change, cap, api_key_id)
    values (p_organisation, item.id, 'set', item.cap, p_by);
  return 'set';
end
$$;

-- Changes a cap, thresholds, or both, from its commit on; null: as they are. A lowered cap is in force at once, as in 0009: all
-- idle parts of leases are recalled. The windows of now and after it are locked besides all that have not ended, when there is
-- a cap.
-- p_project null: anywhere in the organisation. Verdicts: changed | unknown_limit | retired | invalid_cap | invalid_thresholds.
create function change_limit(p_organisation uuid, p_project uuid, p_limit uuid, p_cap bigint, p_thresholds integer[],
  p_by uuid) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_limit usage_limit;
  v_now timestamptz := clock_timestamp();
  v_cap bigint;
  v_thresholds integer[];
  v_leases uuid[];
begin
  if p_cap not between 0 and 1000000000000000 then return 'invalid_cap'; end if;
  select * into v_limit from usage_limit where id = p_limit and organisation_id = p_organisation
    and (p_project is null or project_id = p_project);
  if not found then return 'unknown_limit'; end if;
  if not are_percentages(p_thresholds) or v_limit.project_id is null and p_thresholds <> '{}' then
    return 'invalid_thresholds';
  end if;
  if p_cap is not null then
    insert into limit_window (limit_id, starts_at, ends_at)
      select p_limit, w.starts_at, window_end(v_limit.period, v_limit.time_zone, w.starts_at)
      from (
        select window_start(v_limit.period, v_limit.time_zone, v_now) as starts_at
        union select window_end(v_limit.period, v_limit.time_zone, window_start(v_limit.period, v_limit.time_zone, v_now))
      ) w where w.starts_at is not null order by w.starts_at on conflict do nothing;
    perform from limit_window where limit_id = p_limit and (ends_at is null or ends_at > v_now)
      order by starts_at for no key update;
  end if;
  select * into v_limit from usage_limit where id = p_limit for no key update;
  if v_limit.retired_at is not null then return 'retired'; end if;
  v_cap := coalesce(p_cap, v_limit.cap);
  v_thresholds := coalesce(p_thresholds, v_limit.thresholds);
  if v_cap = v_limit.cap and v_thresholds = v_limit.thresholds then return 'changed'; end if;
  update usage_limit set cap = v_cap, thresholds = v_thresholds where id = p_limit;
  insert into limit_change (organisation_id, limit_id, change, cap, api_key_id)
    values (p_organisation, p_limit, case when v_cap = v_limit.cap then 'thresholds' else 'cap' end, v_cap, p_by);
  if v_cap < v_limit.cap then
    v_leases := array(
      select l.id from lease l join limit_window w on w.limit_id = l.limit_id and w.starts_at = l.starts_at
      where l.limit_id = p_limit and (w.ends_at is null or w.ends_at > v_now) order by l.id for no key update of l
    );
    update lease set leased = used + held, recalled = held > 0 where id = any(v_leases);
  end if;
  return 'changed';
end
$$;

-- For processes of the version before this one, until they have been replaced.
create or replace function change_limit_cap(p_organisation uuid, p_project uuid, p_limit uuid, p_cap bigint, p_by uuid)
returns text
language sql security definer set search_path = public, pg_temp as $$
  select case when p_cap is null then 'invalid_cap'
    else change_limit(p_organisation, p_project, p_limit, p_cap, null, p_by) end
$$;

-- From when on it is told of thresholds: windows that were over by then are none of its business.
alter table webhook add column thresholds_since timestamptz not null default clock_timestamp();
grant update (thresholds_since) on webhook to purser_app, purser_tenant;

-- Which percentages of which windows a webhook was told of; `ends_at` is the window's, null for a life.
create table webhook_limit_threshold (
  webhook_id uuid not null references webhook,
  limit_id uuid not null,
  starts_at timestamptz not null,
  percent integer not null check (percent between 1 and 100),
  ends_at timestamptz,
  told_at timestamptz not null default clock_timestamp(),
  primary key (webhook_id, limit_id, starts_at, percent)
);

create index webhook_limit_threshold_over on webhook_limit_threshold (ends_at);

-- Of windows that have been over for so long; those are looked at for an hour.
create function purge_limit_thresholds(p_age interval, p_most integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_rows integer;
begin
  delete from webhook_limit_threshold where (webhook_id, limit_id, starts_at, percent) in (
    select t.webhook_id, t.limit_id, t.starts_at, t.percent from webhook_limit_threshold t
    where t.ends_at < clock_timestamp() - kept_at_least(p_age)
    order by t.ends_at limit p_most for update skip locked);
  get diagnostics v_rows = row_count;
  return v_rows;
end
$$;

grant select, insert on webhook_limit_threshold to purser_app;
call tenant.confine('webhook_limit_threshold', 'exists (select from webhook w where w.id = webhook_id)');

revoke execute on function are_percentages, note_thresholds, change_limit, purge_limit_thresholds from public;
grant execute on function change_limit, purge_limit_thresholds to purser_app;
-- Whoever changes a row looks at its checks.
grant execute on function are_percentages to purser_app, purser_tenant;
call tenant.guard('change_limit(uuid, uuid, uuid, bigint, integer[], uuid)', 'check_caller($1, $2)');
