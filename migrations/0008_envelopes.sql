-- Trees of envelopes, and the standing envelope of an API key. A call that does not fit its own pocket asks `find_money`:
-- up the tree for a child, in the wallet for a standing envelope. The hot path itself locks nothing but its pocket.

-- `carved`: what a child's pocket was given by its parent so far; nothing goes back before the child closes.
alter table account
  add column carved bigint not null default 0 check (carved >= 0),
  add constraint account_within_its_cap check (cap is null or carved <= cap);

-- The gate as it was set on this envelope itself; `gate` is the one in force, never wider than the parent's. Null follows
-- the parent.
alter table envelope add column own_gate text check (own_gate in ('open', 'frozen', 'closing'));
update envelope set own_gate = case when gate = 'closed' then 'closing' else gate end;

-- The standing envelopes of one wallet are looked for whenever it is short.
create index envelope_standing_of_wallet on envelope (wallet_id) where kind = 'standing' and gate <> 'closed';

-- The most envelopes from a root down to a leaf: one call locks a pocket of each.
create function max_tree_depth() returns integer language sql immutable as $$ select 8 $$;

-- Posted money of the open envelopes below one, in one class and currency: what comes back to it as they close. A wrap-up
-- reserve does not come back while its run goes on. `p_except` is a child whose subtree is left out.
create function money_below(p_envelope uuid, p_except uuid, p_class text, p_currency text) returns bigint
language sql stable as $$
  with recursive below(id) as (
    select e.id from envelope e
    where e.parent_id = p_envelope and e.gate <> 'closed' and e.kind <> 'wrap_up' and e.id is distinct from p_except
    union all
    select e.id from below b join envelope e on e.parent_id = b.id where e.gate <> 'closed' and e.kind <> 'wrap_up'
  )
  select coalesce(sum(a.posted_credit - a.posted_debit), 0)::bigint from below b
  join account a on a.kind = 'pocket' and a.envelope_id = b.id and a.balance_class = p_class and a.currency = p_currency
$$;

-- What a standing pocket is filled with when it lacks `p_missing` for a call of `p_amount` and the wallet has `p_free`:
-- besides what is missing, money for up to 63 calls like it, so that at most one call in 64 locks the wallet; and no more
-- than a sixteenth of what is left, so that one key never empties the wallet ahead of its need and many keys fit beside it.
create function standing_slice(p_missing bigint, p_amount bigint, p_free bigint) returns bigint
language sql immutable as $$
  select least(p_free, p_missing + least(63 * p_amount, (p_free - p_missing) / 16))
$$;

-- Other standing pockets of a wallet, those that rested longest first, until their free money is `p_needed`.
create function idle_pockets(p_wallet uuid, p_class text, p_currency text, p_except uuid, p_needed bigint) returns uuid[]
language sql stable as $$
  select coalesce(array_agg(id), '{}') from (
    select a.id, sum(f.free) over (order by a.moved_at, a.id) - f.free as before
    from envelope e
    join account a on a.kind = 'pocket' and a.envelope_id = e.id and a.balance_class = p_class and a.currency = p_currency
    cross join lateral (select a.posted_credit - a.posted_debit - a.pending_debit as free) f
    where e.wallet_id = p_wallet and e.kind = 'standing' and e.gate <> 'closed' and a.id is distinct from p_except
      and f.free > 0
  ) idle where before < p_needed
$$;

-- Stores why a hold can never fit; closes its attempt for ever.
create function refuse_hold(p_project uuid, p_pocket account, p_item jsonb, p_bound text, p_free bigint) returns void
language sql as $$
  select refuse_holds(array[row(p_project, p_pocket.id, p_pocket.currency, p_pocket.balance_class, i.hold_id, i.call_id,
      i.attempt, p_pocket.envelope_id, i.run_id, i.amount, i.plan, p_free, p_bound,
      case when p_bound = 'pocket' then p_pocket.cap end)::refused_hold], clock_timestamp())
  from jsonb_populate_record(null::reserve_item, p_item) i
$$;

-- Fetches what a hold lacks in its pocket: from the remainders of the envelopes above, and for a standing envelope from its
-- wallet, after the idle money of the wallet's other standing envelopes. Everything or nothing, but for idle money that is
-- home by then.
-- p_item: {hold_id, call_id, attempt, run_id, envelope_id, amount, plan}.
-- Verdicts: again (it is worth asking once more) | busy (it fits once open holds and children came back; nothing is
-- written) | exhausted (stored) | frozen | closing | closed.
-- Locks the wallet account, then the pockets of the tree's branch and those that are recalled, by id.
create function find_money(p_project uuid, p_account uuid, p_item jsonb) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_amount bigint;
  v_pocket account;
  v_root envelope;
  v_wallet account;
  v_chain uuid[];
  v_idle uuid[] := '{}';
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
  end if;
  perform from account where id = any(v_chain || v_idle) order by id for no key update;

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
  -- What came home was due, in part: others may have idle money that is not.
  if v_wallet.version < (select a.version from account a where a.id = v_wallet.id) then return 'again'; end if;
  v_most := most_of(v_chain, case when v_root.kind = 'standing' then v_root.wallet_id end, free_of(v_wallet));
  if (v_most->>'amount')::bigint >= v_amount then return 'busy'; end if;
  perform refuse_hold(p_project, v_pocket, p_item, v_most->>'bound', (v_most->>'amount')::bigint);
  return 'exhausted';
end
$$;

create function free_of(p_account account) returns bigint
language sql immutable as $$
  select coalesce(p_account.posted_credit - p_account.posted_debit - p_account.pending_debit, 0)
$$;

-- What an account has free, or one lot of it.
create function free_in(p_account uuid, p_lot uuid) returns bigint
language sql stable as $$
  select case when p_lot is null then free_of(a) else (select l.free from lot l where l.id = p_lot) end
  from account a where a.id = p_account
$$;

-- Sends the free money of locked standing pockets home to an account of their wallet, those that rested longest first,
-- until the account, or one lot of it, has `p_needed`. What goes home to lots that are due is broken and is no money any
-- more, unless a lot is named: who asks for one asks for it as it is. Says what there is then. The caller holds the account.
create function recall(p_project uuid, p_account uuid, p_pockets uuid[], p_lot uuid, p_needed bigint) returns bigint
language plpgsql as $$
declare
  item record;
  v_has bigint := free_in(p_account, p_lot);
begin
  for item in
    select a.id, a.envelope_id, free_of(a) as free from account a
    join account w on w.id = p_account and w.balance_class = a.balance_class and w.currency = a.currency
    where a.id = any(p_pockets) and free_of(a) > 0 order by a.moved_at, a.id
  loop
    exit when v_has >= p_needed;
    perform send_home(p_project, item.envelope_id, item.id, item.free);
    if p_lot is null then perform break_lots(p_project, p_account); end if;
    v_has := free_in(p_account, p_lot);
  end loop;
  return v_has;
end
$$;

-- The pockets of one class and currency from an envelope up to its root. A child has no pocket that its parent lacks.
create function pockets_above(p_pocket account) returns uuid[]
language sql stable as $$
  with recursive up as (
    select e.id, e.parent_id, 1 as hop from envelope e where e.id = p_pocket.envelope_id
    union all
    select e.id, e.parent_id, u.hop + 1 from up u join envelope e on e.id = u.parent_id
  )
  select array_agg(a.id order by u.hop) from up u
  join account a on a.kind = 'pocket' and a.envelope_id = u.id and a.balance_class = p_pocket.balance_class
    and a.currency = p_pocket.currency
$$;

-- Moves what the lowest pocket of a branch lacks, hop by hop, if it is there and no cap is in the way. Says whether it did.
create function carve_down(p_project uuid, p_chain uuid[], p_idle uuid[], p_wallet account, p_amount bigint,
  p_missing bigint) returns boolean
language plpgsql as $$
declare
  v_top integer := cardinality(p_chain);
  v_pockets account[];
  v_give bigint[] := '{}';
  v_need bigint := p_missing;
begin
  select array_agg(a order by c.hop) into v_pockets
    from unnest(p_chain) with ordinality as c(id, hop) join account a on a.id = c.id;
  for hop in 1 .. v_top - 1 loop
    if v_need > v_pockets[hop].cap - v_pockets[hop].carved then return false; end if;
    v_give[hop] := v_need;
    v_need := greatest(0, v_need - free_of(v_pockets[hop + 1]));
    exit when v_need = 0;
  end loop;
  if v_need > 0 and not fill_standing(p_project, v_pockets[v_top], p_idle, p_wallet, v_need, p_amount) then
    return false;
  end if;
  for hop in reverse cardinality(v_give) .. 1 loop
    update account set carved = carved + v_give[hop] where id = p_chain[hop];
    perform post_transfer(uuidv7(), p_project, 'carve', p_chain[hop + 1], p_chain[hop], v_give[hop],
      (select jsonb_build_object('envelope_id', e.id, 'run_id', e.run_id) from envelope e
        where e.id = v_pockets[hop].envelope_id));
  end loop;
  return true;
end
$$;

-- Fills a standing pocket with a slice of its wallet, recalling idle money first if the wallet is short.
create function fill_standing(p_project uuid, p_pocket account, p_idle uuid[], p_wallet account, p_missing bigint,
  p_amount bigint) returns boolean
language plpgsql as $$
declare
  item record;
  v_free bigint := free_of(p_wallet);
begin
  if p_wallet.id is null or p_missing > v_free + coalesce((
    select sum(free_of(a)) from account a where a.id = any(p_idle)), 0) then return false; end if;
  if p_missing > v_free then v_free := recall(p_project, p_wallet.id, p_idle, null, p_missing); end if;
  if p_missing > v_free then return false; end if;
  for item in select * from lot_take(p_wallet.id, standing_slice(p_missing, p_amount, v_free)) loop
    perform post_transfer(uuidv7(), p_project, 'top_up', p_wallet.id, p_pocket.id, item.amount,
      jsonb_build_object('envelope_id', p_pocket.envelope_id, 'lot_id', item.lot_id));
  end loop;
  return true;
end
$$;

-- The most that the lowest pocket of a branch could have once every hold and every child came back, with nothing more
-- spent: {amount, bound}. `bound` is what stands above it: its own cap or nothing, the tree, or the wallet.
create function most_of(p_chain uuid[], p_wallet uuid, p_wallet_free bigint) returns jsonb
language plpgsql stable as $$
declare
  v_hop record;
  v_above bigint := 0;
  v_capped boolean;
begin
  for v_hop in
    select a.posted_credit - a.posted_debit + money_below(a.envelope_id, b.envelope_id, a.balance_class, a.currency) as own,
      a.cap - a.carved as room, a.envelope_id, a.balance_class, a.currency
    from unnest(p_chain) with ordinality as c(id, hop)
    join account a on a.id = c.id
    left join account b on b.id = p_chain[c.hop - 1]
    order by c.hop desc
  loop
    if v_capped is null and p_wallet is not null then
      v_above := p_wallet_free + (
        select coalesce(sum(a.posted_credit - a.posted_debit + money_below(e.id, null, a.balance_class, a.currency)), 0)
        from envelope e join account a on a.kind = 'pocket' and a.envelope_id = e.id
          and a.balance_class = v_hop.balance_class and a.currency = v_hop.currency
        where e.wallet_id = p_wallet and e.kind = 'standing' and e.gate <> 'closed' and e.id <> v_hop.envelope_id);
    end if;
    v_capped := coalesce(v_hop.room < v_above, false);
    v_above := v_hop.own + least(v_above, v_hop.room);
  end loop;
  return jsonb_build_object('amount', v_above, 'bound', case
    when v_capped or cardinality(p_chain) = 1 and p_wallet is null then 'pocket'
    when p_wallet is not null then 'wallet'
    else 'parent' end);
end
$$;

-- Locks an envelope and all that is open below it, root before child and by id within a level, level by level: a child that
-- is being opened has its parent locked, so the next level sees it.
create function lock_tree(p_project uuid, p_envelope uuid) returns uuid[]
language plpgsql as $$
declare
  v_level uuid[];
  v_tree uuid[] := '{}';
begin
  v_level := array(select id from envelope where id = p_envelope and project_id = p_project for no key update);
  while cardinality(v_level) > 0 loop
    v_tree := v_tree || v_level;
    v_level := array(select id from envelope where parent_id = any(v_level) and gate <> 'closed' order by id
      for no key update);
  end loop;
  return v_tree;
end
$$;

-- The gate in force: what was set on the envelope itself, and never wider than its parent's. A wrap-up reserve alone may be
-- opened while its parent is frozen: a stopped run still delivers from it. Closing is for ever.
create function gate_in_force(p_kind text, p_gate text, p_own text, p_parent text) returns text
language sql immutable as $$
  select case
    when p_gate in ('closing', 'closed') then p_gate
    when p_own = 'closing' or p_parent in ('closing', 'closed') then 'closing'
    when p_kind = 'wrap_up' then coalesce(p_own, p_parent, 'open')
    when 'frozen' in (p_own, p_parent) then 'frozen'
    else 'open' end
$$;

-- Opens, freezes or begins to close an envelope and all below it: from this commit no request begins in one that is not
-- open. Opening it opens what only its own gate kept from being open. Rare, so it may notify: every process with a request
-- in flight hears of it. Returns the gate that is in force afterwards.
create or replace function set_gate(p_project uuid, p_envelope uuid, p_gate text, p_reason text) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_tree uuid[];
  v_changed uuid[];
  v_gate text;
begin
  if p_gate not in ('open', 'frozen', 'closing') then
    raise exception 'the gate % is not set by hand', p_gate using errcode = 'check_violation';
  end if;
  v_tree := lock_tree(p_project, p_envelope);
  if cardinality(v_tree) = 0 then return 'unknown'; end if;
  select gate into v_gate from envelope where id = p_envelope;
  if v_gate in ('closing', 'closed') then return v_gate; end if;
  update envelope set own_gate = case when id = p_envelope then p_gate end
    where id = p_envelope or id = any(v_tree) and kind = 'wrap_up' and own_gate = 'open' and p_gate <> 'open';
  with recursive gated(id, gate) as (
    select e.id, gate_in_force(e.kind, e.gate, e.own_gate, parent.gate)
    from envelope e left join envelope parent on parent.id = e.parent_id where e.id = p_envelope
    union all
    select e.id, gate_in_force(e.kind, e.gate, e.own_gate, g.gate)
    from gated g join envelope e on e.parent_id = g.id and e.id = any(v_tree)
  ), changed as (
    update envelope e set gate = g.gate, gate_reason = p_reason from gated g where e.id = g.id and e.gate <> g.gate
    returning e.id
  )
  select coalesce(array_agg(id), '{}') into v_changed from changed;
  perform from account where kind = 'pocket' and envelope_id = any(v_tree) order by id for no key update;
  update account a set gate = e.gate from envelope e
    where e.id = any(v_changed) and a.kind = 'pocket' and a.envelope_id = e.id;
  perform pg_notify('purser_gate', id::text) from unnest(v_changed) as id;
  select gate into v_gate from envelope where id = p_envelope;
  return v_gate;
end
$$;

-- Closes an envelope and all below it, the lowest first, so that every remainder goes home by way of its parent.
-- Verdicts: closed | open_holds (what could be closed is) | unknown.
create function close_tree(p_project uuid, p_envelope uuid, p_reason text) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_root envelope;
  v_tree uuid[];
  v_verdict text;
  v_result text := 'unknown';
begin
  select * into v_root from envelope where id = p_envelope and project_id = p_project;
  if v_root.parent_id is null then
    perform from account where kind = 'wallet' and wallet_id = v_root.wallet_id order by id for no key update;
  end if;
  v_tree := lock_tree(p_project, p_envelope);
  perform from account where kind = 'pocket' and envelope_id = any(v_tree || v_root.parent_id) order by id
    for no key update;
  for place in reverse cardinality(v_tree) .. 1 loop
    v_verdict := close_envelope(p_project, v_tree[place], p_reason);
    v_result := case when v_result = 'open_holds' or v_verdict <> 'closed' then 'open_holds' else 'closed' end;
  end loop;
  return v_result;
end
$$;

-- Opens a child and carves its money from its parent's remainder: all of it or nothing. It counts for whom the parent
-- counts, and for its own run. `p_items`: [{id, balance_class, currency, amount, cap}]; `cap` is the most it may ever be
-- given (null: no cap), `amount` what it is given now, which may be zero. A wrap-up reserve is what is carved for it now:
-- its parent is stopped when it is used, and lends it nothing more.
-- Asked again for the same child, it changes nothing. Returns no row when it is open, or why it is not: unknown_envelope |
-- unknown_run (another project's) | envelope_closed | envelope_exists | invalid_amount | unknown_pocket (the parent has none of this class and currency) |
-- too_deep | parent_short.
create function open_child(p_project uuid, p_parent uuid, p_envelope uuid, p_run uuid, p_kind text, p_items jsonb)
returns table (reason text, balance_class text, currency text, asked bigint, free bigint)
language plpgsql security definer set search_path = public, pg_temp as $$
#variable_conflict use_column
declare
  item record;
  v_parent envelope;
  v_child envelope;
  v_pocket uuid;
begin
  if p_kind not in ('child', 'wrap_up') then
    raise exception 'an envelope of kind % is no child', p_kind using errcode = 'check_violation';
  end if;
  select * into v_parent from envelope e where e.id = p_parent and e.project_id = p_project for no key update;
  if not found then
    return query select 'unknown_envelope', null::text, null::text, null::bigint, null::bigint; return;
  end if;
  if is_foreign_run(p_project, p_run) then
    return query select 'unknown_run', null::text, null::text, null::bigint, null::bigint; return;
  end if;
  select * into v_child from envelope e where e.id = p_envelope;
  if found then
    if (v_child.parent_id, v_child.kind) is not distinct from (p_parent, p_kind)
      and v_child.run_id is not distinct from coalesce(p_run, v_parent.run_id) then return; end if;
    return query select 'envelope_exists', null::text, null::text, null::bigint, null::bigint; return;
  end if;
  perform from account a where a.kind = 'pocket' and a.envelope_id = p_parent order by a.id for no key update;
  return query select * from refused_child(v_parent, p_items);
  if found then return; end if;

  insert into envelope (id, project_id, wallet_id, run_id, parent_id, api_key_id, subjects, kind, gate, gate_reason)
    values (p_envelope, p_project, v_parent.wallet_id, coalesce(p_run, v_parent.run_id), p_parent, v_parent.api_key_id,
      v_parent.subjects || array_remove(array[case when p_run <> all(v_parent.subjects) then p_run end], null), p_kind,
      v_parent.gate, v_parent.gate_reason)
    returning * into v_child;
  for item in
    select coalesce(i.id, uuidv7()) as id, i.amount, i.cap, a.id as parent, a.balance_class, a.currency
    from jsonb_to_recordset(p_items) as i(id uuid, balance_class text, currency text, amount bigint, cap bigint)
    join account a on a.kind = 'pocket' and a.envelope_id = p_parent and a.balance_class = i.balance_class
      and a.currency = i.currency
    order by a.id
  loop
    insert into account (id, project_id, kind, envelope_id, balance_class, currency, gate, cap, carved)
      values (uuidv7(), p_project, 'pocket', p_envelope, item.balance_class, item.currency, v_child.gate,
        case when p_kind = 'wrap_up' then item.amount else item.cap end, item.amount)
      returning id into v_pocket;
    if item.amount > 0 then
      perform post_transfer(item.id, p_project, 'carve', item.parent, v_pocket, item.amount,
        jsonb_build_object('envelope_id', p_envelope, 'run_id', v_child.run_id));
    end if;
  end loop;
end
$$;

-- The first reason why a child is not opened, or no row. The caller holds the parent and its pockets.
create function refused_child(p_parent envelope, p_items jsonb)
returns table (reason text, balance_class text, currency text, asked bigint, free bigint)
language sql stable as $$
  with recursive item as (
    select i.*, a.id as parent, free_of(a) as free
    from jsonb_to_recordset(p_items) as i(balance_class text, currency text, amount numeric, cap numeric)
    left join account a on a.kind = 'pocket' and a.envelope_id = p_parent.id and a.balance_class = i.balance_class
      and a.currency = i.currency
  ), above as (
    select p_parent.parent_id as id, 1 as depth
    union all
    select e.parent_id, a.depth + 1 from above a join envelope e on e.id = a.id
  ), wrong as (
    select 1 as rank, 'envelope_closed' as reason, null::text as balance_class, null::text as currency,
      null::numeric as asked, null::bigint as free where p_parent.gate in ('closing', 'closed')
    union all
    select 2, 'too_deep', null, null, null, null where (select max(depth) from above) >= max_tree_depth()
    union all
    select 3, 'invalid_amount', i.balance_class, i.currency, null, null from item i
    where not coalesce(i.amount = 0 or is_amount(i.amount), false)
      or not coalesce(i.cap >= i.amount and (i.cap = 0 or is_amount(i.cap)), i.cap is null)
    union all
    select 4, 'invalid_amount', i.balance_class, i.currency, null, null from item i
    group by i.balance_class, i.currency having count(*) > 1
    union all
    select 5, 'unknown_pocket', i.balance_class, i.currency, null, null from item i where i.parent is null
    union all
    select 6, 'parent_short', i.balance_class, i.currency, i.amount, i.free from item i where i.amount > i.free
  )
  select w.reason, w.balance_class, w.currency, w.asked::bigint, w.free from wrong w
  order by w.rank, w.balance_class, w.currency limit 1
$$;

-- All standing pockets that may have money for an account of their wallet. What they have can become idle at any moment,
-- but while the caller holds the account nothing fills one that has none.
create function standing_pockets(p_account uuid) returns uuid[]
language sql stable as $$
  select coalesce(array_agg(a.id), '{}') from account w
  join envelope e on e.wallet_id = w.wallet_id and e.kind = 'standing' and e.gate <> 'closed'
  join account a on a.kind = 'pocket' and a.envelope_id = e.id and a.balance_class = w.balance_class
    and a.currency = w.currency and a.posted_credit > a.posted_debit
  where w.id = p_account
$$;

-- Sends idle money of standing envelopes home, as much as a funding lacks in the wallet: money that no call uses is not
-- refused to a run. The caller holds the wallet's accounts and the envelopes of `p_tree`, whose pockets are locked here in
-- the same pass as all standing pockets that may have some: a second pass could wait for a pocket that comes before one
-- it holds.
create function recall_idle(p_project uuid, p_wallet uuid, p_tree uuid[], p_items jsonb) returns void
language plpgsql as $$
declare
  item record;
  v_accounts uuid[] := '{}';
  v_asked bigint[] := '{}';
  v_pockets uuid[] := '{}';
begin
  for item in
    select a.id, sum(i.amount) as asked
    from jsonb_to_recordset(p_items) as i(balance_class text, currency text, amount numeric)
    join account a on a.kind = 'wallet' and a.wallet_id = p_wallet and a.balance_class = i.balance_class
      and a.currency = i.currency
    group by a.id having is_amount(sum(i.amount))
  loop
    perform break_lots(p_project, item.id);
    continue when item.asked <= (select free_of(a) from account a where a.id = item.id);
    v_accounts := v_accounts || item.id;
    v_asked := v_asked || item.asked::bigint;
    v_pockets := v_pockets || standing_pockets(item.id);
  end loop;
  perform from account a where a.id = any(v_pockets) or a.kind = 'pocket' and a.envelope_id = any(p_tree) order by a.id
    for no key update;
  for place in 1 .. cardinality(v_accounts) loop
    perform recall(p_project, v_accounts[place], v_pockets, null, v_asked[place]);
  end loop;
end
$$;

-- What a wallet's account has free, or one lot of it, once as much idle money is home as it lacks for `p_needed`: of a lot
-- what lies in pockets that drew on it. The caller holds the account and no pocket.
create function recall_for(p_project uuid, p_account uuid, p_lot uuid, p_needed bigint) returns bigint
language plpgsql as $$
declare
  v_pockets uuid[] := '{}';
  v_has bigint := free_in(p_account, p_lot);
begin
  if v_has >= p_needed then return v_has; end if;
  v_pockets := standing_pockets(p_account);
  if p_lot is not null then
    v_pockets := array(select distinct t.credit_account from transfer t
      where t.lot_id = p_lot and t.code = 'top_up' and t.credit_account = any(v_pockets));
  end if;
  perform from account a where a.id = any(v_pockets) order by a.id for no key update;
  return recall(p_project, p_account, v_pockets, p_lot, p_needed);
end
$$;

-- Whether a run belongs to another project. One that is not written yet belongs to whoever opens its envelope.
create function is_foreign_run(p_project uuid, p_run uuid) returns boolean
language sql stable as $$
  select exists (select from run r where r.id = p_run and r.project_id <> p_project)
$$;

drop function open_envelope(uuid, uuid, uuid, text, jsonb);

-- Opens an envelope for a key of the project, and for its run if it has one, and funds it from the project's wallet, or does
-- nothing and says why.
create function open_envelope(p_project uuid, p_envelope uuid, p_run uuid, p_key uuid, p_kind text, p_items jsonb)
returns table (reason text, balance_class text, currency text, asked bigint, free bigint)
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_wallet uuid;
begin
  select id into v_wallet from wallet where project_id = p_project;
  if not found then
    return query select 'no_wallet', null::text, null::text, null::bigint, null::bigint; return;
  end if;
  reason := case
    when not exists (select from api_key k where k.id = p_key and k.project_id = p_project) then 'unknown_key'
    when is_foreign_run(p_project, p_run) then 'unknown_run' end;
  if reason is not null then return next; return; end if;
  perform from account a where a.kind = 'wallet' and a.wallet_id = v_wallet order by a.id for no key update;
  insert into envelope (id, project_id, wallet_id, run_id, api_key_id, kind, subjects)
    select p_envelope, p_project, v_wallet, p_run, p_key, p_kind,
      array_remove(array[p.organisation_id, p.id, p_key, p_run], null)
    from project p where p.id = p_project;
  perform recall_idle(p_project, v_wallet, array[p_envelope], p_items);
  return query select * from fund_envelope(p_project, p_envelope, p_items, true);
end
$$;

-- What was moved before under the ids of these fundings: nothing (null), what they ask for (true), or something else. An id
-- stands for one funding.
create function is_same_top_up(p_project uuid, p_envelope uuid, p_items jsonb) returns boolean
language sql stable as $$
  with asked as (
    select i.*, t.xid, t.project_id = p_project and t.envelope_id = p_envelope and t.code = 'top_up'
      and c.balance_class = i.balance_class and c.currency = coalesce(i.exchange_to, i.currency) as same
    from jsonb_to_recordset(p_items) as i(id uuid, balance_class text, currency text, amount numeric, exchange_to text)
    left join transfer t on t.id = i.id
    left join account c on c.id = t.credit_account
  )
  select coalesce(bool_and(a.same), false) and not exists (
    select a.balance_class, a.currency, sum(a.amount) from asked a group by 1, 2
    except
    select d.balance_class, d.currency, sum(t.amount)
    from transfer t join account d on d.id = t.debit_account and d.kind = 'wallet'
    where t.envelope_id = p_envelope and t.code = 'top_up' and t.xid in (select a.xid from asked a) group by 1, 2
  )
  from asked a having bool_or(a.xid is not null) or count(a.id) > count(distinct a.id)
$$;

-- Money enters a tree at its root: a child has what its parent gives it, and a standing envelope what `find_money` fetches.
-- Whoever tops up may open the gate of the whole tree in the same transaction, so the tree is locked from the start. Asked
-- again under the same ids it changes nothing; with the same ids and something else it is a `mismatch`.
create or replace function top_up_envelope(p_project uuid, p_envelope uuid, p_items jsonb)
returns table (reason text, balance_class text, currency text, asked bigint, free bigint)
language plpgsql security definer set search_path = public, pg_temp as $$
#variable_conflict use_column
declare
  v_root envelope;
  v_tree uuid[];
  v_same boolean;
begin
  select * into v_root from envelope e where e.id = p_envelope and e.project_id = p_project;
  reason := case when v_root.parent_id is not null then 'not_root' when v_root.kind = 'standing' then 'standing_envelope' end;
  if reason is not null then return next; return; end if;
  perform from account a where a.kind = 'wallet' and a.wallet_id = v_root.wallet_id order by a.id for no key update;
  v_same := is_same_top_up(p_project, p_envelope, p_items);
  if not v_same then reason := 'mismatch'; return next; end if;
  if v_same is not null then return; end if;
  v_tree := lock_tree(p_project, p_envelope);
  perform recall_idle(p_project, v_root.wallet_id, v_tree, p_items);
  return query select * from fund_envelope(p_project, p_envelope, p_items, false);
end
$$;

-- The envelope of an API key's calls that belong to no run, made when it is first asked for.
-- `refusal`: unknown_key (or an operator's) | revoked_key | no_wallet.
create function standing_envelope(p_project uuid, p_key uuid) returns table (refusal text, envelope_id uuid)
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_key api_key;
begin
  select e.id into envelope_id from envelope e
    where e.api_key_id = p_key and e.project_id = p_project and e.kind = 'standing' and e.gate in ('open', 'frozen');
  if found then return next; return; end if;
  -- Who revokes the key waits for this, and then finds the envelope.
  select * into v_key from api_key k where k.id = p_key and k.project_id = p_project for share;
  refusal := case
    when v_key.id is null then 'unknown_key'
    when v_key.revoked_at is not null then 'revoked_key'
    when not exists (select from wallet w where w.project_id = p_project) then 'no_wallet' end;
  if refusal is null then
    insert into envelope (id, project_id, wallet_id, api_key_id, kind, subjects)
      select uuidv7(), p_project, w.id, p_key, 'standing', array[v_key.organisation_id, p_project, p_key]
      from wallet w where w.project_id = p_project
      on conflict do nothing;
    select e.id into envelope_id from envelope e
      where e.api_key_id = p_key and e.kind = 'standing' and e.gate <> 'closed';
  end if;
  return next;
end
$$;

-- The pocket that pays a key's calls in one class and currency. It is made empty: `find_money` fills it.
-- `refusal`: as of `standing_envelope`, or wrong_currency.
create function standing_pocket(p_project uuid, p_key uuid, p_class text, p_currency text)
returns table (refusal text, envelope_id uuid, account_id uuid)
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_envelope envelope;
begin
  select a.envelope_id, a.id into envelope_id, account_id from envelope e join account a on a.kind = 'pocket'
    and a.envelope_id = e.id and a.balance_class = p_class and a.currency = p_currency
    where e.api_key_id = p_key and e.project_id = p_project and e.kind = 'standing' and e.gate in ('open', 'frozen');
  if found then return next; return; end if;
  if p_currency is null or p_currency !~ '^[A-Z]{3}$' then
    refusal := 'wrong_currency';
    return next; return;
  end if;
  select s.refusal, s.envelope_id into refusal, envelope_id from standing_envelope(p_project, p_key) s;
  if refusal is null then
    select * into v_envelope from envelope e where e.id = envelope_id for no key update;
    perform ensure_counterparties(p_project, p_currency);
    insert into account (id, project_id, kind, envelope_id, balance_class, currency, gate)
      values (uuidv7(), p_project, 'pocket', v_envelope.id, p_class, p_currency, v_envelope.gate)
      on conflict do nothing;
    select a.id into account_id from account a where a.kind = 'pocket' and a.envelope_id = v_envelope.id
      and a.balance_class = p_class and a.currency = p_currency;
  end if;
  return next;
end
$$;

-- Sends the free money of standing pockets that did not move for so long home to their wallets: of `p_limit` at most, those
-- that rested longest first, of any tenant. What is locked is left to the next turn, so that nobody is waited for; and a
-- wallet that is wrong (`verify` names it), or whose clock is ahead, does not keep the others' money away, however many
-- there are. Says how many pockets it emptied.
create function empty_idle_standing(p_idle interval, p_limit integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  item record;
  v_before timestamptz := clock_timestamp() - p_idle;
  v_emptied integer := 0;
begin
  for item in
    select a.id, a.project_id, a.envelope_id, w.id as wallet
    from envelope e
    join account a on a.kind = 'pocket' and a.envelope_id = e.id and free_of(a) > 0 and a.moved_at <= v_before
    join account w on w.kind = 'wallet' and w.wallet_id = e.wallet_id and w.balance_class = a.balance_class
      and w.currency = a.currency
    where e.kind = 'standing' and e.gate <> 'closed' order by a.moved_at
  loop
    exit when v_emptied >= p_limit;
    perform from account w where w.id = item.wallet for no key update skip locked;
    continue when not found;
    perform from account a where a.id = item.id and a.gate <> 'closed' and free_of(a) > 0 and a.moved_at <= v_before
      for no key update skip locked;
    continue when not found;
    begin
      perform send_home(item.project_id, item.envelope_id, item.id, free_in(item.id, null));
      v_emptied := v_emptied + 1;
    exception when check_violation or sqlstate 'PU001' then
      raise warning 'the idle money of pocket % cannot go home: %', item.id, sqlerrm;
    end;
  end loop;
  return v_emptied;
end
$$;

-- Ends the standing envelope of a revoked key: no call begins from this commit on, and it closes now, or as soon as its
-- holds are resolved (`close_tree` again). Verdicts: closed (or it never was) | open_holds.
create function close_standing(p_project uuid, p_key uuid) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_envelope envelope;
begin
  select * into v_envelope from envelope
    where api_key_id = p_key and project_id = p_project and kind = 'standing' and gate <> 'closed';
  if not found then return 'closed'; end if;
  perform from account where kind = 'wallet' and wallet_id = v_envelope.wallet_id order by id for no key update;
  perform set_gate(p_project, v_envelope.id, 'closing', 'key_revoked');
  return close_tree(p_project, v_envelope.id, 'key_revoked');
end
$$;

grant execute on function open_envelope, find_money, close_tree, open_child, standing_envelope, standing_pocket, empty_idle_standing,
  close_standing to purser_app;
revoke execute on function open_envelope, find_money, close_tree, open_child, standing_envelope, standing_pocket, empty_idle_standing,
  close_standing, max_tree_depth, money_below, standing_slice, idle_pockets, refuse_hold, free_of, pockets_above,
  carve_down, fill_standing, most_of, lock_tree, recall_idle, gate_in_force, refused_child,
  is_foreign_run, is_same_top_up, free_in, recall, recall_for, standing_pockets from public;
