-- What serves all organisations is changed by the installation's operators; keys get other names; corpora are listed; webhooks of all projects take turns; the calls of one key are found among many.

grant update (name) on api_key to purser_app, purser_tenant;
drop trigger api_key_counts_changes on api_key;
create trigger api_key_counts_changes before update of name, revoked_at, expires_at on api_key
  for each row execute function count_version();

drop index corpus_by_project;
create index corpus_by_project on corpus (project_id, id);

-- Refuses, as a bug, what changes something for all organisations and is not asked for by operators of the one that the
-- installation is configured with.
create function tenant.check_installation() returns void language plpgsql as $$
begin
  if tenant.project() is not null or not exists (
    select from organisation o where o.id = tenant.organisation() and o.configured_as is not null
  ) then
    raise exception 'it is no operator of the installation who asks' using errcode = 'insufficient_privilege';
  end if;
end
$$;
revoke execute on function tenant.check_installation from public;
call tenant.guard('add_price(jsonb)', 'check_installation()');
call tenant.guard('add_catalog(bytea, jsonb)', 'check_installation()');

-- Read project by project, so that nobody's deliveries wait for all of another's.
drop index webhook_delivery_due;
create index webhook_delivery_due on webhook_delivery (project_id, due_at) where state = 'waiting';

-- Beside call_of_key, which has those of no run: a call is in one of the two.
create index call_of_run_of_key on call (api_key_id, created_at, id) where run_id is not null;

-- What is listed of a period long ago, or of one target.
create index webhook_delivery_in_time on webhook_delivery (webhook_id, created_at);
create index audit_event_in_time on audit_event (organisation_id, at);
create index audit_event_of_target on audit_event (organisation_id, target, id);
