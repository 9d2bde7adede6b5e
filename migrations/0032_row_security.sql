-- What a key asks the management API, it asks as the role purser_tenant, in a transaction that says whose key it is:
--   purser.organisation  the organisation of the key
--   purser.project       its project; empty for an operator, who sees all projects of the organisation
-- Rows of others do not exist for it; without the settings none do. The role is made beside purser_app, which may become it
-- (src/db/migrate.ts). The owner is not confined, nor are its functions (a look-up of a policy in `post` would be paid by every
-- call): so the role executes no function with the owner's rights, but those of the schema `tenant`, which check first.

create schema tenant;

create function tenant.organisation() returns uuid language sql stable as $$
  select nullif(current_setting('purser.organisation', true), '')::uuid
$$;

create function tenant.project() returns uuid language sql stable as $$
  select nullif(current_setting('purser.project', true), '')::uuid
$$;

grant usage on schema tenant to purser_tenant;

-- Confines a table: the role sees and changes the rows of which p_rows is true, by the rights that purser_app has.
-- The settings are read once per statement, as sub-selects: a function in a policy would be called for every row. An operator's
-- projects are those that the policy of `project` leaves.
create procedure tenant.confine(p_table regclass, p_rows text default
  'project_id = (select tenant.project()) or (select tenant.project()) is null and project_id in (select p.id from project p)')
language plpgsql as $$
declare
  v_right record;
begin
  execute format('alter table %s enable row level security', p_table);
  execute format('create policy tenant on %s to purser_tenant using (%s)', p_table, p_rows);
  for v_right in
    select a.privilege_type as verb, '' as columns
    from pg_class c cross join aclexplode(c.relacl) a
    where c.oid = p_table and a.grantee = 'purser_app'::regrole
    union all
    select a.privilege_type, format('(%I)', t.attname)
    from pg_attribute t cross join aclexplode(t.attacl) a
    where t.attrelid = p_table and not t.attisdropped and a.grantee = 'purser_app'::regrole
  loop
    execute format('grant %s %s on %s to purser_tenant', v_right.verb, v_right.columns, p_table);
  end loop;
end
$$;

-- Whatever names a project.
do $$
declare
  v_table regclass;
begin
  for v_table in
    select a.attrelid from pg_attribute a join pg_class c on c.oid = a.attrelid
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attname = 'project_id' and a.attnotnull
    order by c.relname
  loop
    call tenant.confine(v_table);
  end loop;
end
$$;

call tenant.confine('organisation', 'id = (select tenant.organisation())');
call tenant.confine('project',
  'organisation_id = (select tenant.organisation()) and ((select tenant.project()) is null or id = (select tenant.project()))');

-- Of a project, or of the organisation itself: then its operators'.
call tenant.confine('api_key',
  'organisation_id = (select tenant.organisation()) and ((select tenant.project()) is null or project_id = (select tenant.project()))');
call tenant.confine('audit_event',
  'organisation_id = (select tenant.organisation()) and ((select tenant.project()) is null or project_id = (select tenant.project()))');
call tenant.confine('idempotency', 'scope = coalesce((select tenant.project()), (select tenant.organisation()))');
call tenant.confine('invoice', 'organisation_id = (select tenant.organisation()) and (select tenant.project()) is null');
call tenant.confine('limit_change', 'organisation_id = (select tenant.organisation()) and (select tenant.project()) is null');
call tenant.confine('route_reset', 'organisation_id = (select tenant.organisation()) and (select tenant.project()) is null');
-- Those of the organisation bind its projects: a refusal names them.
call tenant.confine('quote', 'organisation_id = (select tenant.organisation())');
call tenant.confine('usage_limit', 'organisation_id = (select tenant.organisation())
  and ((select tenant.project()) is null or project_id is null or project_id = (select tenant.project()))');

-- What belongs to a row that is confined itself.
call tenant.confine('limit_window', 'exists (select from usage_limit u where u.id = limit_id)');
call tenant.confine('webhook_low_balance', 'exists (select from webhook w where w.id = webhook_id)');

-- Tables of the installation are of no tenant. Operators may close a circuit.
grant select on catalog, price, allowed_movement, instance, route_state, route_lease, route_use to purser_tenant;
grant insert, update on route_state to purser_tenant;

-- Functions that read with the rights of who asks.
do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid from pg_proc p
    where p.pronamespace = 'public'::regnamespace and not p.prosecdef and p.proname <> 'admit_runs'
      and exists (select from aclexplode(p.proacl) a where a.grantee = 'purser_app'::regrole)
  loop
    execute format('grant execute on function %s to purser_tenant', v_function);
  end loop;
end
$$;

-- Refuses, as a bug: a route that lets somebody name another's project has forgotten to look it up.
create function tenant.check_project(p_project uuid) returns void language plpgsql as $$
begin
  if not exists (
    select from project p where p.id = p_project and p.organisation_id = tenant.organisation()
      and (tenant.project() is null or p.id = tenant.project())
  ) then
    raise exception 'project % is not of who asks', p_project using errcode = 'insufficient_privilege';
  end if;
end
$$;

create function tenant.check_caller(p_organisation uuid, p_project uuid) returns void language plpgsql as $$
begin
  if p_organisation is distinct from tenant.organisation() or p_project is distinct from tenant.project() then
    raise exception 'it is not organisation % and project % who asks', p_organisation, p_project
      using errcode = 'insufficient_privilege';
  end if;
end
$$;

create function tenant.check_operator(p_organisation uuid) returns void language plpgsql as $$
begin
  if tenant.project() is not null or p_organisation is null or p_organisation is distinct from tenant.organisation() then
    raise exception 'it is no operator of organisation % who asks', p_organisation using errcode = 'insufficient_privilege';
  end if;
end
$$;

-- Puts a function of the same name and arguments before one with the owner's rights: p_check, then the function. In a tenant's
-- transaction the schema `tenant` comes first, so that src/db calls either by the same text.
create procedure tenant.guard(p_function regprocedure, p_check text) language plpgsql as $$
declare
  v_name text := (select proname from pg_proc where oid = p_function);
  v_arguments text := (
    select string_agg('$' || n, ', ' order by n)
    from generate_series(1, (select pronargs from pg_proc where oid = p_function)) n);
  v_is_set boolean := (select proretset from pg_proc where oid = p_function);
begin
  execute format(
    'create or replace function tenant.%I(%s) returns %s language sql security definer set search_path = public, pg_temp as %L',
    v_name, pg_get_function_arguments(p_function), pg_get_function_result(p_function),
    format('select tenant.%s; select %s public.%I(%s)', p_check, case when v_is_set then '* from' else '' end, v_name,
      v_arguments));
  execute format('revoke execute on function tenant.%I from public', v_name);
  execute format('grant execute on function tenant.%I to purser_tenant', v_name);
end
$$;

revoke execute on all routines in schema tenant from public;
grant execute on function tenant.organisation, tenant.project to purser_tenant;

-- What moves the money of one project.
do $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.prosecdef and p.proargnames[1] = 'p_project'
      and exists (select from aclexplode(p.proacl) a where a.grantee = 'purser_app'::regrole)
  loop
    call tenant.guard(v_function, 'check_project($1)');
  end loop;
end
$$;

call tenant.guard('set_limit(uuid, uuid, jsonb, uuid)', 'check_caller($1, $2)');
call tenant.guard('change_limit_cap(uuid, uuid, uuid, bigint, uuid)', 'check_caller($1, $2)');
call tenant.guard('retire_limit(uuid, uuid, uuid, uuid)', 'check_caller($1, $2)');
call tenant.guard('add_quote(jsonb)', $$check_operator(($1->>'organisation_id')::uuid)$$);
call tenant.guard('add_price(jsonb)', 'check_operator(tenant.organisation())');
call tenant.guard('add_catalog(bytea, jsonb)', 'check_operator(tenant.organisation())');
