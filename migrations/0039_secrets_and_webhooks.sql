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

-- What is due is taken project by project: addresses that never answer keep no other project's waiting.
create index webhook_delivery_of_project on webhook_delivery (project_id, due_at) where state = 'waiting';
drop index webhook_delivery_due;
