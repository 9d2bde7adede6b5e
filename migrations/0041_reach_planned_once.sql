-- What pockets could pay is told with each settlement of a gateway's call. Its plan was made anew each time, which took
-- longer than all that it does. It is made once now, and stays good when the tables grow, by the rules of 0013.
create or replace function money_within_reach(accounts uuid[])
returns table (account_id uuid, project_id uuid, hop integer, free bigint, room bigint, wallet bigint)
language plpgsql volatile
set enable_seqscan = off set enable_bitmapscan = off set enable_memoize = off set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  -- Deepest tree of runs that is looked up.
  most_hops constant integer := 16;
begin
  return query
    with recursive up as (
      select a.id as pocket_id, a.project_id as tenant_id, e.parent_id, e.kind, e.wallet_id, a.balance_class, a.currency,
        a.is_free, a.has_room, 1 as hops
      from unnest(accounts) as asked(id)
      cross join lateral (
        select p.*, p.posted_credit - p.posted_debit - p.pending_debit as is_free, p.cap - p.carved as has_room
        from account p where p.id = asked.id limit 1
      ) a
      cross join lateral (select x.* from envelope x where x.id = a.envelope_id limit 1) e
      union all
      select u.pocket_id, u.tenant_id, e.parent_id, e.kind, e.wallet_id, u.balance_class, u.currency, a.is_free, a.has_room,
        u.hops + 1
      from up u
      cross join lateral (select x.* from envelope x where x.id = u.parent_id limit 1) e
      cross join lateral (
        select p.posted_credit - p.posted_debit - p.pending_debit as is_free, p.cap - p.carved as has_room
        from account p where p.kind = 'pocket' and p.envelope_id = u.parent_id and p.balance_class = u.balance_class
          and p.currency = u.currency limit 1
      ) a
      where u.hops < most_hops
    )
    select u.pocket_id, u.tenant_id, u.hops, u.is_free, u.has_room, (
        select w.posted_credit - w.posted_debit - w.pending_debit from account w
        where u.kind = 'standing' and w.kind = 'wallet' and w.wallet_id = u.wallet_id and w.project_id = u.tenant_id
          and w.balance_class = u.balance_class and w.currency = u.currency limit 1
      )
    from up u order by u.pocket_id, u.hops;
end
$$;
