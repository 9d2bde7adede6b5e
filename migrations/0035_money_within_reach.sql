-- What pockets could pay now: their free money, and what they may still be given from above, by their parents within their
-- caps, or by their wallet when they are a key's. One row for each hop, with the root of the tree last.
--
-- Not `stable`: told beside `post`, in one statement, it sees what that has written.
create function money_within_reach(accounts uuid[])
returns table (account_id uuid, project_id uuid, hop integer, free bigint, room bigint, wallet bigint)
language plpgsql volatile as $$
declare
  -- Deepest tree of runs that is looked up.
  most_hops constant integer := 16;
begin
  return query
    with recursive up as (
      select a.id as pocket_id, a.project_id as tenant_id, e.parent_id, e.kind, e.wallet_id, a.balance_class, a.currency,
        a.posted_credit - a.posted_debit - a.pending_debit as is_free, a.cap - a.carved as has_room, 1 as hops
      from account a join envelope e on e.id = a.envelope_id
      where a.id = any (accounts)
      union all
      select u.pocket_id, u.tenant_id, e.parent_id, e.kind, e.wallet_id, p.balance_class, p.currency,
        p.posted_credit - p.posted_debit - p.pending_debit, p.cap - p.carved, u.hops + 1
      from up u join envelope e on e.id = u.parent_id
        join account p on p.envelope_id = e.id and p.balance_class = u.balance_class and p.currency = u.currency
      where u.hops < most_hops
    )
    select u.pocket_id, u.tenant_id, u.hops, u.is_free, u.has_room, (
        select w.posted_credit - w.posted_debit - w.pending_debit from account w
        where u.kind = 'standing' and w.kind = 'wallet' and w.wallet_id = u.wallet_id and w.project_id = u.tenant_id
          and w.balance_class = u.balance_class and w.currency = u.currency
      )
    from up u order by u.pocket_id, u.hops;
end
$$;

grant execute on function money_within_reach to purser_app;
revoke execute on function money_within_reach from public;
