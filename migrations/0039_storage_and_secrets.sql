-- A process's file with keys for secrets may change while it runs: it says which one it encrypts with by now.
grant update (encrypts_with) on instance to purser_app;

-- How many webhooks the organisation of a project has that are told. Who asks makes one, then: others wait until that is done.
create function webhooks_beside(p_project uuid) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_organisation uuid := (select p.organisation_id from project p where p.id = p_project);
begin
  perform from organisation o where o.id = v_organisation for no key update;
  -- A statement of its own, with what was committed before the lock was there.
  return (select count(*) from webhook w join project p on p.id = w.project_id
    where p.organisation_id = v_organisation and w.ended_at is null);
end
$$;
revoke execute on function webhooks_beside from public;
grant execute on function webhooks_beside to purser_app;
call tenant.guard('webhooks_beside(uuid)', 'check_project($1)');

-- Roots of a project below which something is used again by a fork that is not over.
create function roots_in_use(p_project uuid) returns setof uuid language sql stable as $$
  with recursive above as (
    select s.id, s.parent_run_id from run f join run s on s.id = f.source_run_id
      where f.project_id = p_project and f.finished_at is null and f.reuse_before is not null
    union
    select r.id, r.parent_run_id from above a join run r on r.id = a.parent_run_id
  ) select id from above where parent_run_id is null
$$;
revoke execute on function roots_in_use from public;

-- As in 0030, but that trees which wait for a fork of a run below their root keep no others from being marked.
create or replace function begin_erasing(p_most integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_project project;
  v_in_use uuid[];
  v_root uuid;
  v_tree uuid[];
  v_marked integer := 0;
begin
  for v_project in select * from project p where kept_for(p) is not null order by p.id loop
    v_in_use := array(select roots_in_use(v_project.id));
    for v_root in
      select r.id from run r
      where r.project_id = v_project.id and r.parent_run_id is null and r.erasing_at is null
        and r.finished_at < clock_timestamp() - kept_for(v_project) and r.id <> all(v_in_use)
      order by r.finished_at limit p_most - v_marked for no key update of r skip locked
    loop
      v_tree := array(select tree_of_run(v_root));
      perform from run where id = any(v_tree) order by id for no key update;
      -- A statement of its own, with what was committed before the locks were there.
      continue when exists (select from run r where r.id = any(v_tree) and (r.finished_at is null or exists (
        select from run f where f.source_run_id = r.id and f.reuse_before is not null and f.finished_at is null)));
      update run set erasing_at = clock_timestamp(), output_digest = payload_digest(nullif(output, 'null')),
          output = null
        where id = any(v_tree) and erasing_at is null;
      v_marked := v_marked + 1;
    end loop;
    exit when v_marked >= p_most;
  end loop;
  return v_marked;
end
$$;
