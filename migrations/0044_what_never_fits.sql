-- As in 0009, but for what is told first.

-- Stores why a hold will never fit: for a limit of which even a whole window has no room for it, where there is one, since
-- nothing that ends helps against that; else for the tightest of the limits that it exceeds, the one with the least room for
-- what is needed of it. Of two as tight it is the one that resets later: the other would let nothing pass either.
create or replace function refuse_for_limit(p_pocket account, p_item jsonb, p_plans lease_plan[]) returns void
language plpgsql as $$
declare
  item record;
  tightest record;
begin
  select i.* into item from jsonb_to_record(p_item) as i(hold_id uuid, call_id uuid, attempt integer, run_id uuid,
    amount bigint, plan jsonb);
  select s.*, greatest(0, s.cap - s.spent - s.held) as free, u.scope, u.step into tightest
    from unnest(p_plans) s join usage_limit u on u.id = s.limit_id
    where s.need > 0 and s.cap - s.spent < s.need
    order by s.need <= s.cap, (s.cap - s.spent - s.held)::numeric / s.need, s.ends_at desc nulls first, s.limit_id limit 1;
  insert into refusal (hold_id, project_id, run_id, envelope_id, account_id, call_id, attempt, bound, asked, free, plan,
      limit_id, measure, cap, spent, held, resets_at)
    values (item.hold_id, p_pocket.project_id, item.run_id, p_pocket.envelope_id, p_pocket.id, item.call_id, item.attempt,
      'limit', tightest.need, tightest.free, item.plan, tightest.limit_id, tightest.measure, tightest.cap, tightest.spent,
      tightest.held, tightest.ends_at);
  if item.run_id is null then return; end if;
  insert into event (project_id, run_id, kind, data) values (p_pocket.project_id, item.run_id, 'attempt.refused',
    jsonb_build_object('callId', item.call_id, 'attempt', item.attempt, 'route', item.plan->>'route',
      'balanceClass', p_pocket.balance_class, 'currency', p_pocket.currency, 'askedNano', item.amount::text,
      'freeNano', case tightest.measure when 'money' then tightest.free
        else p_pocket.posted_credit - p_pocket.posted_debit - p_pocket.pending_debit end::text,
      'limit', jsonb_build_object('limitId', tightest.limit_id, 'scope', tightest.scope, 'step', tightest.step,
        'measure', tightest.measure, 'cap', tightest.cap::text, 'spent', tightest.spent::text,
        'held', tightest.held::text, 'asked', tightest.need::text, 'free', tightest.free::text,
        'resetsAt', tightest.ends_at)));
end
$$;
