-- Lists over a whole project in time, and versions of what several people may change at the same time.

create index call_by_project on call (project_id, created_at, id);
create index transfer_of_deposit on transfer (project_id, seq) where code = 'deposit';

alter table organisation add column version integer not null default 1;
alter table project add column version integer not null default 1;
alter table api_key add column version integer not null default 1;
alter table usage_limit add column version integer not null default 1;
alter table webhook add column version integer not null default 1;

-- Counts the changes of a row; under its lock, so that who says which version they change is told of any other.
create function count_version() returns trigger language plpgsql as $$
begin
  new.version := old.version + 1;
  return new;
end
$$;
create trigger organisation_counts_changes before update of name on organisation
  for each row execute function count_version();
create trigger project_counts_changes before update of name, max_running_runs, storage, keep_days on project
  for each row execute function count_version();
create trigger api_key_counts_changes before update of revoked_at, expires_at on api_key
  for each row execute function count_version();
create trigger usage_limit_counts_changes before update of cap, retired_at on usage_limit
  for each row execute function count_version();
create trigger webhook_counts_changes before update of url, topics, low_balance, ended_at on webhook
  for each row execute function count_version();

revoke execute on function count_version from public;
grant update (name) on project to purser_app, purser_tenant;
grant update (url, topics, low_balance) on webhook to purser_app, purser_tenant;
-- Who locks a row must be allowed to change something of it; limits are changed by functions.
grant update (version) on usage_limit to purser_app, purser_tenant;
