-- Runs wait for a place among their project's running ones, and schedules start runs.

alter table project
  -- Root runs that may be admitted, unfinished and not paused at the same time.
  add column max_running_runs integer not null default 50 check (max_running_runs between 1 and 100000);

alter table run
  -- Its start command is told to its workflow from then on. Children need no place: they spend their parent's.
  add column admitted_at timestamptz,
  add column schedule_id uuid;

update run set admitted_at = coalesce(started_at, created_at)
  where parent_run_id is null and (started_at is not null
    or exists (select from command c where c.run_id = run.id and c.kind = 'start' and c.delivered_at is not null));

create index run_waiting on run (project_id, priority, id)
  where admitted_at is null and finished_at is null and parent_run_id is null;
create index run_busy on run (project_id)
  where admitted_at is not null and finished_at is null and parent_run_id is null;

-- One at a time, so that the places counted here are still free when they are given. Those that are ending wait for
-- nobody: they only close. Others by priority, then projects in turns (who has the fewest at work is next), then by age.
create function admit_runs(p_limit integer) returns setof uuid language plpgsql as $$
begin
  if not exists (
    select from run where admitted_at is null and finished_at is null and parent_run_id is null
      and exists (select from command c where c.run_id = run.id and c.kind = 'start' and c.delivered_at is null)
  ) then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('admit_runs', 0));
  return query
    update run set admitted_at = clock_timestamp()
    where admitted_at is null and id in (
      select waiting.id
      from project p
      cross join lateral (
        select count(*) as busy from run r
        where r.project_id = p.id and r.admitted_at is not null and r.finished_at is null and r.parent_run_id is null
          and r.state <> 'paused'
      ) now
      cross join lateral (
        select ranked.*, row_number() over (order by ranked.priority, ranked.id) as place
        from (
          select r.id, r.priority, r.ending_at is not null as is_ending
          from run r
          where r.project_id = p.id and r.admitted_at is null and r.finished_at is null and r.parent_run_id is null
          order by r.priority, r.id
          limit case when now.busy < p.max_running_runs then least(p.max_running_runs - now.busy, p_limit) else 0 end
        ) ranked
        union all
        select r.id, r.priority, true, 0
        from run r
        where r.project_id = p.id and r.admitted_at is null and r.finished_at is null and r.parent_run_id is null
          and r.ending_at is not null
      ) waiting
      order by waiting.is_ending desc, waiting.priority, now.busy + waiting.place, waiting.id
      limit p_limit
    )
    returning id;
end $$;

-- What starts runs by the clock. Its row is the truth; Temporal is told until it has heard of this version.
create table schedule (
  id uuid primary key,
  project_id uuid not null references project,
  -- Who made it, and pays.
  api_key_id uuid not null references api_key,
  name text not null,
  every_seconds integer check (every_seconds >= 60),
  cron text,
  time_zone text not null,
  -- The request of each run as it was asked for, and its input with the defaults of the agent's schema.
  request jsonb not null,
  input jsonb not null,
  -- A list of balance class, currency and nano: the most that its runs of one month may take out of the wallet.
  monthly_cap jsonb,
  state text not null default 'active' check (state in ('active', 'paused', 'deleted')),
  state_reason text,
  version integer not null default 1,
  told_version integer not null default 0,
  created_at timestamptz not null default clock_timestamp(),
  changed_at timestamptz not null default clock_timestamp(),
  check ((every_seconds is null) <> (cron is null)),
  check (told_version <= version)
);

create unique index schedule_name on schedule (project_id, name) where state <> 'deleted';
create index schedule_by_project on schedule (project_id, id desc);
create index schedule_to_tell on schedule (changed_at) where told_version < version;

alter table run add foreign key (schedule_id) references schedule;
create index run_by_schedule on run (schedule_id, id desc) where schedule_id is not null;

-- What became of each time of a schedule: a run, or the reason why there is none.
create table schedule_firing (
  schedule_id uuid not null references schedule,
  scheduled_for timestamptz not null,
  id uuid not null unique,
  project_id uuid not null,
  run_id uuid references run,
  skipped text,
  detail text,
  fired_at timestamptz not null default clock_timestamp(),
  primary key (schedule_id, scheduled_for),
  check ((run_id is null) = (skipped is not null))
);

create index schedule_firing_by_schedule on schedule_firing (schedule_id, id desc);

revoke all on function admit_runs from public;
grant execute on function admit_runs to purser_app;
grant update (max_running_runs) on project to purser_app;
grant update (admitted_at, schedule_id) on run to purser_app;
grant select, insert on schedule, schedule_firing to purser_app;
grant update (api_key_id, name, every_seconds, cron, time_zone, request, input, monthly_cap, state, state_reason, version,
  told_version, changed_at) on schedule to purser_app;
