-- Locks an envelope, all that is open below it and their pockets, in the order of `set_gate`: who acts on a run looks at
-- it then, and nothing of its money moves before that is decided.
create function lock_envelopes(p_project uuid, p_envelope uuid) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  perform from account where kind = 'pocket' and envelope_id = any(lock_tree(p_project, p_envelope)) order by id
    for no key update;
end
$$;

grant execute on function lock_envelopes to purser_app;
revoke execute on function lock_envelopes from public;

-- What of a run's money is to be told when it is spent: a percentage of each pocket of its own envelope.
create table run_threshold (
  run_id uuid not null references run,
  project_id uuid not null,
  balance_class text not null,
  currency text not null,
  percent integer not null check (percent between 1 and 100),
  told_at timestamptz,
  primary key (run_id, balance_class, currency, percent)
);

grant select on run_threshold to purser_app;

-- A pocket of a run with thresholds, or of an envelope below it. All others pay nothing for them.
alter table account add column watched boolean not null default false;

create function watch_child() returns trigger
language plpgsql as $$
begin
  new.watched := coalesce((
    select p.watched from envelope e
    join account p on p.kind = 'pocket' and p.envelope_id = e.parent_id and p.balance_class = new.balance_class
      and p.currency = new.currency
    where e.id = new.envelope_id
  ), false);
  return new;
end
$$;

create trigger account_is_watched_as_its_parent before insert on account
  for each row when (new.kind = 'pocket') execute function watch_child();

-- Watches the pockets of a run that has just been funded.
create function watch_run(p_project uuid, p_run uuid, p_percents integer[]) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  insert into run_threshold (run_id, project_id, balance_class, currency, percent)
    select r.id, r.project_id, a.balance_class, a.currency, t.percent
    from run r join account a on a.kind = 'pocket' and a.envelope_id = r.envelope_id
    cross join unnest(p_percents) as t(percent)
    where r.id = p_run and r.project_id = p_project;
  update account a set watched = true from run r
    where r.id = p_run and r.project_id = p_project and a.kind = 'pocket' and a.envelope_id = r.envelope_id;
end
$$;

-- Tells the thresholds of a run that a settlement has crossed, in its commit. Deferred to the commit's end, when both sides
-- of every movement have moved: what was funded, has not gone home and is not in the tree's pockets was spent. Who may
-- cross it from several pockets at the same time waits for the others, so that none is missed, and none is told twice.
create function tell_thresholds() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_root envelope;
  v_tree uuid[];
  v_pocket uuid;
  v_funded bigint;
  v_spent bigint;
begin
  with recursive up as (
    select e.id, e.parent_id from envelope e where e.id = new.envelope_id
    union all
    select e.id, e.parent_id from up u join envelope e on e.id = u.parent_id
  )
  select e.* into v_root from up u join envelope e on e.id = u.id where u.parent_id is null;
  if not exists (
    select from run_threshold t where t.run_id = v_root.run_id and t.balance_class = new.balance_class
      and t.currency = new.currency and t.told_at is null
  ) then return null; end if;
  -- Closed ones have nothing.
  with recursive tree(id) as (
    select v_root.id
    union all
    select e.id from tree t join envelope e on e.parent_id = t.id and e.gate <> 'closed'
  )
  select array_agg(id) into v_tree from tree;
  if cardinality(v_tree) > 1 then
    perform from run_threshold t where t.run_id = v_root.run_id and t.balance_class = new.balance_class
      and t.currency = new.currency order by t.percent for no key update;
  end if;
  select a.id into v_pocket from account a where a.kind = 'pocket' and a.envelope_id = v_root.id
    and a.balance_class = new.balance_class and a.currency = new.currency;
  select coalesce(sum(m.amount) filter (where m.credit_account = v_pocket and m.code = 'top_up'), 0),
      coalesce(sum(case when m.credit_account = v_pocket and m.code = 'top_up' then m.amount
        when m.debit_account = v_pocket and m.code = 'return' then -m.amount else 0 end), 0)
      - (select sum(a.posted_credit - a.posted_debit) from account a where a.kind = 'pocket'
          and a.envelope_id = any(v_tree) and a.balance_class = new.balance_class and a.currency = new.currency)
    into v_funded, v_spent
    from transfer m where m.envelope_id = v_root.id and m.code in ('top_up', 'return');
  with told as (
    update run_threshold t set told_at = clock_timestamp()
    where t.run_id = v_root.run_id and t.balance_class = new.balance_class and t.currency = new.currency
      and t.told_at is null and v_spent::numeric * 100 >= v_funded::numeric * t.percent
    returning t.percent
  )
  insert into event (project_id, run_id, kind, data)
    select v_root.project_id, v_root.run_id, 'run.threshold', jsonb_build_object('percent', t.percent,
      'balanceClass', new.balance_class, 'currency', new.currency, 'spentNano', v_spent::text,
      'fundedNano', v_funded::text)
    from told t order by t.percent;
  return null;
end
$$;

create constraint trigger account_tells_thresholds after update on account deferrable initially deferred
  for each row when (new.watched and new.posted_debit > old.posted_debit) execute function tell_thresholds();

grant execute on function watch_run to purser_app;
revoke execute on function watch_run, watch_child, tell_thresholds from public;
