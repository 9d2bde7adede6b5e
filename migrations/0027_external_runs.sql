-- Runs of kind `external`: programs outside make their calls, through the gateway, with a key that works for that run alone.

alter table api_key add column run_id uuid references run;
create index api_key_by_run on api_key (run_id) where run_id is not null;

alter table command drop constraint command_kind_check;
alter table command add constraint command_kind_check
  check (kind in ('start', 'top_up', 'pause', 'resume', 'cancel', 'answer', 'end'));

-- Gives runs that wait the places that are free, by priority, then projects in turns, then age. An external run works
-- elsewhere: it begins at once, and takes no place from those that work here. Its start is delivered like any other.
create or replace function admit_runs(p_limit integer) returns setof uuid language plpgsql as $$
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
          and r.state <> 'paused' and r.agent <> 'external'
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
