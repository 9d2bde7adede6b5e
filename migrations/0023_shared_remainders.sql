-- Children that share their parent's money (they have no cap) fetch what they need, and what a call did not use stays with
-- them. Two of them that each lacked what lay idle in the other waited for ever: neither could end, and neither was refused.
-- What has lain idle for a moment is recalled now, before anybody waits for it.

-- Money that was moved so recently is on its way into a hold: recalling it would only send it to and fro.
create function idle_after() returns interval language sql immutable as $$ select interval '1 second' $$;

-- The pockets below a branch that share its money, all the way up to it, and are no part of it.
create function shared_below(p_chain uuid[]) returns uuid[]
language sql stable as $$
  with recursive down as (
    select id, envelope_id, balance_class, currency from account where id = any(p_chain)
    union all
    select b.id, b.envelope_id, b.balance_class, b.currency
    from down d
    join envelope e on e.parent_id = d.envelope_id and e.kind = 'child' and e.gate in ('open', 'frozen')
    join account b on b.kind = 'pocket' and b.envelope_id = e.id and b.balance_class = d.balance_class
      and b.currency = d.currency and b.cap is null and b.id <> all(p_chain)
  )
  select coalesce(array_agg(id), '{}') from down where id <> all(p_chain)
$$;

-- Sends idle money of pockets that share a branch's up to it, what lay longest first, one movement a hop: as much as the
-- branch lacks to give its lowest pocket `p_missing`. Moves nothing, and says so, if that is not there or a cap is in the
-- way. The caller holds all of them.
create function recall_shared(p_project uuid, p_chain uuid[], p_shared uuid[], p_missing bigint) returns boolean
language plpgsql as $$
declare
  item record;
  v_idle_since timestamptz := clock_timestamp() - idle_after();
  v_needed bigint;
  v_part bigint;
  v_at uuid;
  v_up uuid;
begin
  if exists (select from account a where a.id = any(p_chain) and a.cap - a.carved < p_missing) then return false; end if;
  select p_missing - coalesce(sum(free_of(a)), 0) into v_needed from account a where a.id = any(p_chain[2:]);
  if v_needed > (
    select coalesce(sum(free_of(a)), 0) from account a where a.id = any(p_shared) and a.moved_at < v_idle_since
  ) then return false; end if;
  for item in
    select a.id, free_of(a) as free, pockets_above(a) as way from account a
    where a.id = any(p_shared) and a.moved_at < v_idle_since and free_of(a) > 0 order by a.moved_at, a.id
  loop
    exit when v_needed <= 0;
    v_part := least(v_needed, item.free);
    v_needed := v_needed - v_part;
    v_at := item.id;
    foreach v_up in array item.way[2:] loop
      perform post_transfer(uuidv7(), p_project, 'return', v_at, v_up, v_part, (
        select jsonb_build_object('envelope_id', e.id, 'run_id', e.run_id) from account a
        join envelope e on e.id = a.envelope_id where a.id = v_at));
      exit when v_up = any(p_chain);
      v_at := v_up;
    end loop;
  end loop;
  return true;
end
$$;

-- Fetches what a hold lacks in its pocket: from the remainders of the envelopes above, then from what lies idle in others
-- that share them; and for a standing envelope from its wallet, after the idle money of the wallet's other standing
-- envelopes. Everything or nothing, but for idle money that is home by then.
-- p_item: {hold_id, call_id, attempt, run_id, envelope_id, amount, plan}.
-- Verdicts: again (it is worth asking once more) | busy (it fits once open holds and children came back; nothing is
-- written) | exhausted (stored) | frozen | closing | closed.
-- Locks the wallet account, then the pockets of the tree's branch and those that may be recalled, by id.
create or replace function find_money(p_project uuid, p_account uuid, p_item jsonb) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_amount bigint;
  v_pocket account;
  v_root envelope;
  v_wallet account;
  v_chain uuid[];
  v_idle uuid[] := '{}';
  v_shared uuid[] := '{}';
  v_has bigint;
  v_most jsonb;
begin
  select * into v_pocket from account where id = p_account and project_id = p_project and kind = 'pocket'
    and envelope_id = (p_item->>'envelope_id')::uuid;
  -- `post` says by name what is wrong with it.
  if not found or not coalesce((p_item->>'amount')::numeric between 0 and 1000000000000000, false) or not exists (
    select from call c where c.id = (p_item->>'call_id')::uuid and c.project_id = p_project
      and c.envelope_id = v_pocket.envelope_id and c.run_id is not distinct from (p_item->>'run_id')::uuid
  ) then return 'again'; end if;
  v_amount := p_item->>'amount';
  v_chain := pockets_above(v_pocket);
  select e.* into v_root from account a join envelope e on e.id = a.envelope_id where a.id = v_chain[cardinality(v_chain)];
  if v_root.kind = 'standing' then
    select * into v_wallet from account where kind = 'wallet' and wallet_id = v_root.wallet_id
      and balance_class = v_pocket.balance_class and currency = v_pocket.currency for no key update;
    if found and break_lots(p_project, v_wallet.id) > 0 then
      select * into v_wallet from account where id = v_wallet.id;
    end if;
    if free_of(v_wallet) < v_amount then
      v_idle := idle_pockets(v_root.wallet_id, v_pocket.balance_class, v_pocket.currency, v_chain[cardinality(v_chain)],
        v_amount - free_of(v_wallet));
    end if;
  elsif v_amount > (select sum(free_of(a)) from account a where a.id = any(v_chain)) then
    v_shared := shared_below(v_chain);
  end if;
  perform from account where id = any(v_chain || v_idle || v_shared) order by id for no key update;

  select * into v_pocket from account where id = p_account;
  if v_pocket.gate <> 'open' then return v_pocket.gate; end if;
  if exists (
    select from refusal r where r.hold_id = (p_item->>'hold_id')::uuid and r.project_id = p_project
  ) then return 'exhausted'; end if;
  if exists (select from attempt a where a.call_id = (p_item->>'call_id')::uuid
    and (a.state = 'sent' or a.number = (p_item->>'attempt')::integer)) then return 'again'; end if;
  -- What is out on holds of a child comes back to it; a standing pocket does not wait for that, the wallet fills it.
  v_has := case when v_pocket.envelope_id = v_root.id and v_root.kind = 'standing' then free_of(v_pocket)
    else v_pocket.posted_credit - v_pocket.posted_debit end;
  if v_amount <= v_has or carve_down(p_project, v_chain, v_idle, v_wallet, v_amount, v_amount - v_has) then return 'again'; end if;
  if cardinality(v_shared) > 0 and recall_shared(p_project, v_chain, v_shared, v_amount - v_has) then
    if carve_down(p_project, v_chain, v_idle, v_wallet, v_amount, v_amount - v_has) then return 'again'; end if;
    if cardinality(v_chain) = 1 then return 'again'; end if;
  end if;
  -- What came home was due, in part: others may have idle money that is not.
  if v_wallet.version < (select a.version from account a where a.id = v_wallet.id) then return 'again'; end if;
  v_most := most_of(v_chain, case when v_root.kind = 'standing' then v_root.wallet_id end, free_of(v_wallet));
  if (v_most->>'amount')::bigint >= v_amount then return 'busy'; end if;
  perform refuse_hold(p_project, v_pocket, p_item, v_most->>'bound', (v_most->>'amount')::bigint);
  return 'exhausted';
end
$$;

revoke execute on function idle_after, shared_below, recall_shared from public;
