-- A batch settles in many trees, and fires their triggers in an order of its own: two batches that both settled in the same two
-- watched trees waited for each other. Now the first trigger of a commit takes the locks of all its trees, in one order.

-- Locks the untold thresholds of all trees in which this transaction has moved money, where several pockets may cross them.
-- Once: the triggers are deferred, so nothing moves any more when the first of them asks.
create function lock_thresholds() returns void
language plpgsql as $$
declare
  v_transaction text := pg_current_xact_id()::text;
begin
  if current_setting('purser.thresholds_locked_by', true) = v_transaction then return; end if;
  perform from run_threshold t
    where t.told_at is null and t.run_id in (
      with recursive up(id, parent_id, run_id) as (
        select e.id, e.parent_id, e.run_id from envelope e
        where e.id in (
          select a.envelope_id from transfer m join account a on a.id = m.debit_account
          where m.xid = pg_current_xact_id() and a.watched
        )
        union
        select e.id, e.parent_id, e.run_id from up u join envelope e on e.id = u.parent_id
      )
      select u.run_id from up u where u.parent_id is null
        and exists (select from envelope c where c.parent_id = u.id and c.gate <> 'closed')
    )
    order by t.run_id, t.balance_class, t.currency, t.percent for no key update;
  perform set_config('purser.thresholds_locked_by', v_transaction, true);
end
$$;

-- Tells the thresholds of a run that a settlement has crossed, in its commit. Deferred to the commit's end, when both sides
-- of every movement have moved: what was funded, has not gone home and is not in the tree's pockets was spent. Who may
-- cross it from several pockets at the same time waits for the others, so that none is missed, and none is told twice.
create or replace function tell_thresholds() returns trigger
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
  perform lock_thresholds();
  -- Closed ones have nothing.
  with recursive tree(id) as (
    select v_root.id
    union all
    select e.id from tree t join envelope e on e.parent_id = t.id and e.gate <> 'closed'
  )
  select array_agg(id) into v_tree from tree;
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

revoke execute on function lock_thresholds from public;
