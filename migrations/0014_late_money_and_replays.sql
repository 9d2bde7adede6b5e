-- What was truly spent finds its money wherever the tree or the wallet has it, and only what is nowhere is owed; nobody waits
-- for money that expires as it comes home; and what is asked for again is a replay only if it is the same.
-- All of it is rare, and looks rows up by key: a plan that was made for small tables must not read whole ones later.

-- Late truth carves as well: what it carved counts against a child's cap from now on.
update account a set carved = least(a.cap, (
    select sum(t.amount) from transfer t where t.credit_account = a.id and t.code = 'carve'))
  where a.id in (
    select t.credit_account from transfer t
    where t.code = 'carve' and exists (select from transfer late where late.xid = t.xid and late.code = 'correction')
  );

drop function bring_late(uuid, uuid[], integer, bigint);
drop function lock_way_home(account);

-- The pockets of one class and currency from an envelope up to its root. A child has no pocket that its parent lacks.
create or replace function pockets_above(p_pocket account) returns uuid[]
language sql stable as $$
  with recursive up as (
    select e.id, e.parent_id, 1 as hop from envelope e where e.id = p_pocket.envelope_id
    union all
    select e.id, e.parent_id, u.hop + 1 from up u
    cross join lateral (select e.id, e.parent_id from envelope e where e.id = u.parent_id limit 1) e
  )
  select array_agg(a.id order by u.hop) from up u
  cross join lateral (
    select a.id from account a where a.kind = 'pocket' and a.envelope_id = u.id
      and a.balance_class = p_pocket.balance_class and a.currency = p_pocket.currency limit 1
  ) a
$$;

-- Locks the pockets from one up to its root's; and for a standing envelope first the account of its wallet, and with the
-- pockets all that may have idle money of it, if the account has less than `p_amount`.
create function lock_branch(p_project uuid, p_pocket account, p_amount bigint) returns uuid[]
language plpgsql as $$
declare
  v_pockets uuid[] := pockets_above(p_pocket);
  v_wallet uuid := standing_wallet(v_pockets[cardinality(v_pockets)]);
  v_idle uuid[] := '{}';
begin
  if v_wallet is not null then
    perform from account where id = v_wallet for no key update;
    perform break_lots(p_project, v_wallet);
    if free_in(v_wallet, null) < p_amount then v_idle := standing_pockets(v_wallet); end if;
  end if;
  perform from account where id = any(v_pockets || v_idle) order by id for no key update;
  return v_pockets;
end
$$;

-- The wallet's account that fills a root's pocket: none, but for a standing envelope that is not closed.
create function standing_wallet(p_pocket uuid) returns uuid
language sql stable as $$
  select w.id from account a join envelope e on e.id = a.envelope_id and e.kind = 'standing' and e.gate <> 'closed'
  join account w on w.kind = 'wallet' and w.wallet_id = e.wallet_id and w.balance_class = a.balance_class
    and w.currency = a.currency
  where a.id = p_pocket
$$;

-- Brings money for what was spent to the first of some pockets, from the remainders of those above, hop by hop; what they
-- lack comes from the wallet, if the root is closed or a standing envelope. Says how much of `p_amount` that pocket has then.
-- A cap is no bound here: it bounds what a child may ask for, and what was spent is paid by those above it before anybody
-- owes it. It counts as far as it can. The caller holds the pockets (but those of a tree that is closed) and the wallet.
create function bring_down(p_project uuid, p_pockets uuid[], p_amount bigint) returns bigint
language plpgsql as $$
declare
  v_top integer := cardinality(p_pockets);
  v_give bigint[] := '{}';
  v_need bigint := p_amount;
begin
  for hop in 1 .. v_top loop
    v_need := greatest(0, v_need - free_in(p_pockets[hop], null));
    exit when v_need = 0 or hop = v_top;
    v_give[hop] := v_need;
  end loop;
  if v_need > 0 then v_need := v_need - bring_to_root(p_project, p_pockets, v_need); end if;
  for hop in reverse cardinality(v_give) .. 1 loop
    v_give[hop] := v_give[hop] - v_need;
    continue when v_give[hop] = 0;
    update account set carved = least(cap, carved + v_give[hop]) where id = p_pockets[hop];
    perform post_transfer(uuidv7(), p_project, 'carve', p_pockets[hop + 1], p_pockets[hop], v_give[hop],
      tags_of_pocket(p_pockets[hop]));
  end loop;
  return p_amount - v_need;
end
$$;

-- Brings money from the wallet to the last of the pockets, the root's, if anything does. Says how much.
create function bring_to_root(p_project uuid, p_pockets uuid[], p_amount bigint) returns bigint
language plpgsql as $$
declare
  item record;
  v_root uuid := p_pockets[cardinality(p_pockets)];
  v_wallet uuid := standing_wallet(v_root);
  v_idle uuid[];
  v_part bigint;
begin
  if (select gate from account where id = v_root) = 'closed' then return fund_late(p_project, p_pockets, p_amount); end if;
  if v_wallet is null then return 0; end if;
  v_idle := array(select id from unnest(standing_pockets(v_wallet)) as id where id <> all(p_pockets));
  v_part := least(p_amount, recall(p_project, v_wallet, v_idle, null, p_amount));
  for item in select * from lot_take(v_wallet, v_part) loop
    perform post_transfer(uuidv7(), p_project, 'top_up', v_wallet, v_root, item.amount,
      tags_of_pocket(v_root) || jsonb_build_object('lot_id', item.lot_id));
  end loop;
  return v_part;
end
$$;

-- `settle` resolves an attempt out of its own pocket. In front of it comes what fetches the rest.
alter function settle(uuid, uuid, jsonb, boolean) rename to settle_in_pocket;
revoke execute on function settle_in_pocket from purser_app;

-- Resolves one attempt, whatever it takes: an overage, a replay, a take-over. What it cost beyond its hold is fetched first,
-- in the same commit, where its pocket lacks it; the wallet account of a standing envelope and the pockets above are locked
-- for it before the pocket's own. p_item as in `post`, with overage_id and debt_id. With p_take_over only an attempt
-- whose owner's lease is dead is resolved: at its hold at most, so that nothing is fetched.
-- Verdicts: settled | replayed (the same resolution again) | already_resolved | owner_alive | mismatch | unknown_hold |
-- invalid_amount.
create function settle(p_project uuid, p_account uuid, p_item jsonb, p_take_over boolean) returns text
language plpgsql security definer set search_path = public, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  v_pocket account;
  v_pockets uuid[];
  v_excess bigint := case when p_take_over then 0 else excess_of(p_project, p_account, p_item) end;
begin
  if v_excess > 0 then
    select * into v_pocket from account where id = p_account;
    v_pockets := lock_branch(p_project, v_pocket, v_excess);
    -- Somebody may have resolved it since, and a closed envelope is filled by corrections only.
    if excess_of(p_project, p_account, p_item) > 0 and (select gate from account where id = p_account) <> 'closed' then
      perform bring_down(p_project, v_pockets, v_excess);
    end if;
  end if;
  return settle_in_pocket(p_project, p_account, p_item, p_take_over);
end
$$;

-- What an open attempt would cost beyond its hold by a settlement that can be booked; else nothing.
create function excess_of(p_project uuid, p_account uuid, p_item jsonb) returns bigint
language sql stable as $$
  select coalesce(max(i.amount - t.amount), 0)
  from jsonb_to_record(p_item) as i(hold_id uuid, amount bigint, tokens bigint)
  join transfer t on t.id = i.hold_id and t.project_id = p_project and t.code = 'hold' and t.debit_account = p_account
  where i.amount > t.amount and i.amount <= 1000000000000000
    and coalesce(i.tokens between 0 and 1000000000000000, true)
    and not exists (select from transfer r where r.pending_id = t.id)
$$;

-- Sends money home from the first of the pockets, by way of those above: to the first one that is not closed, or to the
-- wallet. What an open one was given beyond its cap goes on to who gave it: it paid for what turns out not to be spent.
create or replace function return_late(p_project uuid, p_pockets uuid[], p_open integer, p_amount bigint) returns void
language plpgsql as $$
declare
  v_amount bigint := p_amount;
begin
  for hop in 1 .. cardinality(p_pockets) - 1 loop
    if hop >= p_open then v_amount := least(v_amount, beyond_cap(p_pockets[hop])); end if;
    exit when v_amount = 0;
    perform post_transfer(uuidv7(), p_project, 'return', p_pockets[hop], p_pockets[hop + 1], v_amount,
      tags_of_pocket(p_pockets[hop]));
  end loop;
  if p_open is null then
    perform send_home(p_project, a.envelope_id, a.id, p_amount) from account a where a.id = p_pockets[cardinality(p_pockets)];
  end if;
end
$$;

-- What a child's pocket has of its parent beyond its cap.
create function beyond_cap(p_pocket uuid) returns bigint
language sql stable as $$
  select case when a.cap is null then 0 else greatest(0, (
    select coalesce(sum(t.amount), 0) from transfer t where t.credit_account = a.id and t.code = 'carve'
  ) - (
    select coalesce(sum(t.amount), 0) from transfer t where t.debit_account = a.id and t.code = 'return'
  ) - a.cap) end::bigint
  from account a where a.id = p_pocket
$$;

-- Locks what a correction may change, but for the pockets of a tree that is closed: those come with the idle ones that
-- are recalled. The wallet itself is locked so that whatever pays a debt comes one by one. Says which pockets lie on the
-- way from the attempt's up to the root's, and the first of them that is not closed: while the wallet's accounts are
-- locked, no root closes. `p_amount` is the most that the correction may take.
create function lock_way_home(p_pocket account, p_amount bigint, out pockets uuid[], out open integer)
language plpgsql as $$
declare
  v_wallet uuid := (select e.wallet_id from envelope e where e.id = p_pocket.envelope_id);
begin
  perform from wallet where id = v_wallet for no key update;
  perform from account where kind = 'wallet' and wallet_id = v_wallet order by id for no key update;
  pockets := pockets_above(p_pocket);
  if (select gate from account where id = pockets[cardinality(pockets)]) = 'closed' then return; end if;
  perform lock_branch(p_pocket.project_id, p_pocket, p_amount);
  select min(w.hop) into open from unnest(pockets) with ordinality as w(id, hop) join account a on a.id = w.id
    where a.gate <> 'closed';
end
$$;
-- What to answer to a correction without booking it: it was booked before, its ids stand for something else, or, for one
-- that voids, there is nothing to take back, or the cost is known. What was estimated after a void may be voided again: an
-- estimate is nobody's bill. Null when it is to be booked. The caller holds the locks.
create or replace function known_correction(p_hold transfer, p_outcome text, p_item jsonb) returns text
language plpgsql stable as $$
declare
  v_ids uuid[] := array[p_item->>'correction_id', p_item->>'debt_id'];
  v_seq bigint;
begin
  if coalesce((p_item->>'voids')::boolean, false) then
    return case
      when p_outcome is distinct from 'lost' then 'known'
      when exists (select from transfer r where r.pending_id = p_hold.id and r.certainty = 'billed') then 'known'
      when exists (
        select from transfer t where t.call_id = p_hold.call_id and t.attempt = p_hold.attempt
          and t.code in ('overage', 'correction') and t.certainty = 'billed'
      ) then 'known'
      when charged_of(p_hold) = 0 then 'replayed' end;
  end if;
  select max(t.seq) into v_seq from transfer k join transfer t on t.xid = k.xid and t.code = 'correction'
    and t.call_id = p_hold.call_id and t.attempt = p_hold.attempt where k.id = any(v_ids) and k.code = 'correction';
  return case
    when v_seq is not null and charged_of(p_hold, v_seq) = (p_item->>'amount')::bigint
      and is_same_correction(p_hold, v_seq, p_item) then 'replayed'
    when exists (select from transfer t where t.id = any(v_ids)) then 'mismatch' end;
end
$$;

-- Whether a correction that is told again says what it said. What the attempt keeps of it (tokens, usage, detail) is not
-- compared once another correction has told others; nor is what answered nothing, with no answer at all.
create function is_same_correction(p_hold transfer, p_seq bigint, p_item jsonb) returns boolean
language sql stable as $$
  select t.certainty is not distinct from i.certainty
    and (exists (
      select from transfer later where later.call_id = p_hold.call_id and later.attempt = p_hold.attempt
        and later.code in ('overage', 'correction') and later.code = 'correction' and later.seq > p_seq
    ) or a.usage is not distinct from i.usage and a.tokens_used is not distinct from coalesce(i.tokens, a.tokens_used)
      and coalesce(a.detail, '{}') @> coalesce(i.detail, '{}'))
    and case when t.use = 'useful' then c.answer_id is not distinct from i.answer_id else true end
    and (i.answer_id is null or exists (
      select from payload p where p.id = i.answer_id and p.project_id = p_hold.project_id and p.body = i.answer
    ))
  from jsonb_to_record(p_item) as i(tokens bigint, certainty text, usage jsonb, detail jsonb, answer_id uuid, answer jsonb)
  join transfer t on t.call_id = p_hold.call_id and t.attempt = p_hold.attempt and t.code in ('overage', 'correction')
    and t.seq = p_seq
  join call c on c.id = p_hold.call_id
  join attempt a on a.call_id = p_hold.call_id and a.number = p_hold.attempt
$$;

-- Truth that comes after an attempt was resolved by estimate: stores the answer if the call has none, and books truth
-- minus what was charged, by the attempt's pocket. What comes back pays off what this attempt left as a debt; the rest
-- stays in the pocket, or goes on to the first envelope above that is not closed, or home to the wallet. What is missing
-- comes the same way, and is owed if it is nowhere.
-- p_item: {hold_id, correction_id, debt_id, amount, tokens, certainty, usage, detail, answer_id, answer, voids}; `voids`:
-- only for a lost attempt whose cost nobody knows.
-- Verdicts: corrected | replayed | mismatch (one of these ids stands for something else) | known (of one that voids: its cost
-- is known) | unresolved | unknown_hold | invalid_amount.
create or replace function correct(p_project uuid, p_account uuid, p_item jsonb) returns text
language plpgsql security definer set search_path = public, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  item record;
  v_pocket account;
  v_hold transfer;
  v_attempt attempt;
  v_way record;
  v_known text;
  v_charged bigint;
  v_was_call boolean;
  v_delta bigint;
  v_debt bigint;
  v_moved bigint;
  v_tags jsonb;
  v_answers boolean;
begin
  select i.* into item from jsonb_to_record(p_item) as i(hold_id uuid, correction_id uuid, debt_id uuid, amount bigint,
    tokens bigint, certainty text, usage jsonb, detail jsonb, answer_id uuid, answer jsonb);
  if item.amount not between 0 and 1000000000000000 or item.tokens not between 0 and 1000000000000000 then
    return 'invalid_amount';
  end if;
  select * into v_pocket from account where id = p_account and project_id = p_project and kind = 'pocket';
  select * into v_hold from transfer t where t.id = item.hold_id and t.project_id = p_project and t.code = 'hold'
    and t.debit_account = v_pocket.id;
  if not found then return 'unknown_hold'; end if;
  select * into v_way from lock_way_home(v_pocket, item.amount);
  select * into v_attempt from attempt a where a.call_id = v_hold.call_id and a.number = v_hold.attempt;
  if not exists (select from transfer t where t.pending_id = item.hold_id) then return 'unresolved'; end if;
  v_known := known_correction(v_hold, v_attempt.outcome, p_item);
  if v_known is not null then return v_known; end if;

  -- A void by hand is known by what it did, not by its ids: there may be one after each estimate.
  if exists (select from transfer t where t.id in (item.correction_id, item.debt_id)) then
    item.correction_id := uuidv7();
    item.debt_id := uuidv7();
  end if;

  v_charged := charged_of(v_hold);
  v_was_call := is_call(v_hold, v_charged);
  v_delta := item.amount - v_charged;
  if v_delta > 0 then
    v_moved := bring_down(p_project, v_way.pockets, v_delta);
    v_debt := v_delta - v_moved;
  else
    perform from account where id = any(v_way.pockets) order by id for no key update;
    v_debt := greatest(0, least(-v_delta, owed_of(v_hold), project_debt(p_project, v_hold.currency)));
    v_moved := -v_delta - v_debt;
  end if;
  -- Before the call, as `post` has them: it may be answering another attempt of it.
  perform from lease where id = any(v_attempt.leases) order by id for no key update;
  v_answers := store_answer(v_hold, item.answer_id, item.answer);
  v_tags := jsonb_build_object('envelope_id', v_hold.envelope_id, 'run_id', v_hold.run_id, 'call_id', v_hold.call_id,
    'attempt', v_hold.attempt, 'certainty', item.certainty, 'use', case when v_answers then 'useful' else 'wasted' end);
  perform post_correction(v_hold, m.id, m.account, m.amount * sign(v_delta)::bigint, v_tags)
    from (values (item.correction_id, v_pocket.id, v_moved, v_debt = 0),
      (item.debt_id, counterparty(p_project, 'overage', v_hold.currency), v_debt, false)) as m(id, account, amount, always)
    where m.amount > 0 or m.always;
  if v_delta < 0 and v_moved > 0 then perform return_late(p_project, v_way.pockets, v_way.open, v_moved); end if;
  perform settle_leases(v_attempt.leases, 0, 0, 0, v_delta, coalesce(item.tokens - v_attempt.tokens_used, 0),
    (item.amount > 0)::integer - v_was_call::integer);
  update attempt a set usage = item.usage, detail = coalesce(a.detail, '{}') || coalesce(item.detail, '{}'),
    tokens_used = coalesce(item.tokens, a.tokens_used) where a.call_id = v_hold.call_id and a.number = v_hold.attempt;
  if v_hold.run_id is not null then
    insert into event (project_id, run_id, kind, data) values (p_project, v_hold.run_id, 'attempt.corrected',
      jsonb_build_object('callId', v_hold.call_id, 'attempt', v_hold.attempt, 'currency', v_hold.currency,
        'deltaNano', v_delta::text, 'answered', v_answers));
  end if;
  return 'corrected';
end
$$;

-- What of a standing pocket's money stays money as it goes home: not what goes to lots that are due, which expires there. It
-- goes to the lots of its fundings, last drawn first, net of what went back to each: as `send_home` sends it.
create function kept_at_home(p_pocket account, p_amount bigint) returns bigint
language plpgsql stable as $$
declare
  leg record;
  v_back jsonb := '{}';
  v_net bigint;
  v_left bigint := p_amount;
  v_due bigint := 0;
begin
  if p_pocket.balance_class <> 'credit' then return p_amount; end if;
  for leg in
    select t.code, t.amount, coalesce(t.lot_id::text, '') as lot, coalesce(l.expires_at <= clock_timestamp(), false) as is_due
    from transfer t left join lot l on l.id = t.lot_id
    where t.envelope_id = p_pocket.envelope_id and t.code in ('top_up', 'return')
      and p_pocket.id in (t.debit_account, t.credit_account) order by t.seq desc
  loop
    exit when v_left = 0;
    v_net := case when leg.code = 'return' then -leg.amount else leg.amount end - coalesce((v_back->>leg.lot)::bigint, 0);
    v_back := v_back || jsonb_build_object(leg.lot, greatest(0, -v_net));
    v_net := least(v_left, greatest(0, v_net));
    v_left := v_left - v_net;
    if leg.is_due then v_due := v_due + v_net; end if;
  end loop;
  return p_amount - v_due;
end
$$;

-- The most that the lowest pocket of a branch could have once every hold and every child came back, with nothing more
-- spent: {amount, bound}. `bound` is what stands above it: its own cap or nothing, the tree, or the wallet. Of other standing
-- envelopes only what is money once it is home.
create or replace function most_of(p_chain uuid[], p_wallet uuid, p_wallet_free bigint) returns jsonb
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
        select coalesce(sum(kept_at_home(a,
            a.posted_credit - a.posted_debit + money_below(e.id, null, a.balance_class, a.currency))), 0)
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

-- Recalls what is idle in windows of which more is lent than the cap, because an attempt truly used more than it held.
-- A settlement cannot do it: it may not wait for a window. Takes at most `p_most` windows; those that others hold are passed
-- over, and keep none of the rest away.
create or replace function recall_leases(p_most integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
#variable_conflict use_column
declare
  item record;
  v_limits uuid[];
  v_starts timestamptz[];
  v_leases uuid[];
  v_recalled integer := 0;
begin
  select array_agg(w.limit_id), array_agg(w.starts_at) into v_limits, v_starts from (
    select w.limit_id, w.starts_at from limit_window w
    where (w.limit_id, w.starts_at) in (
      select o.limit_id, o.starts_at from limit_window o
      join usage_limit u on u.id = o.limit_id and u.retired_at is null
      join lease l on l.limit_id = o.limit_id and l.starts_at = o.starts_at
      where o.ends_at is null or o.ends_at > clock_timestamp()
      group by o.limit_id, o.starts_at, u.cap
      having o.used + sum(l.leased) > u.cap and bool_or(l.leased > l.used + l.held or l.held > 0 and not l.recalled)
    ) order by w.limit_id, w.starts_at limit p_most for no key update skip locked
  ) w;
  v_leases := array(
    select l.id from lease l join unnest(v_limits, v_starts) w(limit_id, starts_at)
      on w.limit_id = l.limit_id and w.starts_at = l.starts_at order by l.id for no key update of l
  );
  for item in
    select w.limit_id, w.used + sum(l.leased) - u.cap as excess, sum(l.leased - l.used - l.held) as idle,
      array_agg(l.id) as leases
    from limit_window w join usage_limit u on u.id = w.limit_id
    join lease l on l.limit_id = w.limit_id and l.starts_at = w.starts_at and l.id = any(v_leases)
    group by w.limit_id, w.starts_at, u.cap having w.used + sum(l.leased) > u.cap
  loop
    perform take_back(item.leases, item.limit_id, null, least(item.excess, item.idle)::bigint);
    update lease set recalled = true where id = any(item.leases) and item.excess > item.idle and held > 0;
    v_recalled := v_recalled + 1;
  end loop;
  return v_recalled;
end
$$;

-- Opens an envelope for a key of the project, and for its run if it has one, and funds it from the project's wallet, or does
-- nothing and says why. Asked again for the same, whatever has become of it, it changes nothing; `envelope_exists` when its
-- id stands for another one or for other fundings, `mismatch` when a funding's id stands for something else.
create or replace function open_envelope(p_project uuid, p_envelope uuid, p_run uuid, p_key uuid, p_kind text, p_items jsonb)
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
  if not exists (select from envelope e where e.id = p_envelope)
    and is_same_top_up(p_project, p_envelope, p_items) is not null then
    reason := 'mismatch';
    return next; return;
  end if;
  insert into envelope (id, project_id, wallet_id, run_id, api_key_id, kind, subjects)
    select p_envelope, p_project, v_wallet, p_run, p_key, p_kind,
      array_remove(array[p.organisation_id, p.id, p_key, p_run], null)
    from project p where p.id = p_project
    on conflict (id) do nothing;
  if not found then
    reason := case when is_same_opening(p_project, p_envelope, p_run, p_key, p_kind, p_items) then null
      else 'envelope_exists' end;
    if reason is not null then return next; end if;
    return;
  end if;
  perform recall_idle(p_project, v_wallet, array[p_envelope], p_items);
  return query select * from fund_envelope(p_project, p_envelope, p_items, true);
end
$$;

-- Whether an envelope that is there was opened with just this.
create function is_same_opening(p_project uuid, p_envelope uuid, p_run uuid, p_key uuid, p_kind text, p_items jsonb)
returns boolean
language sql stable as $$
  select exists (
    select from envelope e where e.id = p_envelope and e.project_id = p_project and e.parent_id is null
      and (e.run_id, e.api_key_id, e.kind) is not distinct from (p_run, p_key, p_kind)
  ) and coalesce(is_same_top_up(p_project, p_envelope, p_items), jsonb_array_length(p_items) = 0)
    -- What came first is what it was opened with.
    and (
      select t.xid from transfer t where t.envelope_id = p_envelope and t.code = 'top_up' order by t.seq limit 1
    ) is not distinct from (
      select t.xid from jsonb_to_recordset(p_items) as i(id uuid) join transfer t on t.id = i.id limit 1
    )
$$;

-- What was moved before under the ids of these fundings: nothing (null), just what they ask for (true), or something else.
-- An id stands for one funding.
create or replace function is_same_top_up(p_project uuid, p_envelope uuid, p_items jsonb) returns boolean
language sql stable as $$
  with asked as (
    select i.*, t.xid, t.project_id = p_project and t.envelope_id = p_envelope and t.code = 'top_up'
      and c.balance_class = i.balance_class and c.currency = coalesce(i.exchange_to, i.currency) as same
    from jsonb_to_recordset(p_items) as i(id uuid, balance_class text, currency text, amount numeric, exchange_to text)
    left join transfer t on t.id = i.id
    left join account c on c.id = t.credit_account
  ), sums as (
    select a.balance_class, a.currency, sum(a.amount) as amount from asked a group by 1, 2
  ), moved as (
    select d.balance_class, d.currency, sum(t.amount) as amount
    from transfer t join account d on d.id = t.debit_account and d.kind = 'wallet'
    where t.envelope_id = p_envelope and t.code = 'top_up' and t.xid in (select a.xid from asked a) group by 1, 2
  )
  select bool_and(coalesce(a.same, false))
    and not exists (
      (select * from sums except select * from moved) union all (select * from moved except select * from sums)
    )
  from asked a having bool_or(a.xid is not null) or count(a.id) > count(distinct a.id)
$$;

-- Whether an attempt of an envelope is open: looked for among those that are, whatever the planner believes of the table's
-- size. The caller holds the pockets.
create function has_open_attempt(p_envelope uuid) returns boolean
language sql stable set enable_seqscan = off as $$
  select exists (select from attempt a where a.state = 'sent' and a.envelope_id = p_envelope)
$$;

-- Sends the remainder to the parent's pockets, or home, and closes, if no hold is open, be it one of nothing: what a call of
-- a free model turns out to cost is paid by its envelope, and not owed.
-- Verdicts: closed | open_holds | open_children | unknown.
create or replace function close_envelope(p_project uuid, p_envelope uuid, p_reason text) returns text
language plpgsql security definer set search_path = public, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
  item record;
  v_envelope envelope;
begin
  select * into v_envelope from envelope where id = p_envelope and project_id = p_project;
  if v_envelope.parent_id is null then
    perform from account a where a.kind = 'wallet' and a.wallet_id = v_envelope.wallet_id
      order by a.id for no key update;
  end if;
  select * into v_envelope from envelope where id = p_envelope and project_id = p_project for no key update;
  if not found then return 'unknown'; end if;
  if v_envelope.gate = 'closed' then return 'closed'; end if;
  insert into account (id, project_id, kind, envelope_id, balance_class, currency, gate)
    select uuidv7(), p_project, 'pocket', parent.id, a.balance_class, a.currency, parent.gate
    from envelope parent, account a
    where parent.id = v_envelope.parent_id and a.kind = 'pocket' and a.envelope_id = p_envelope
      and not exists (select from account b where b.kind = 'pocket' and b.envelope_id = parent.id
        and b.balance_class = a.balance_class and b.currency = a.currency)
    on conflict do nothing;
  perform from account where kind = 'pocket' and envelope_id in (p_envelope, v_envelope.parent_id)
    order by id for no key update;
  if exists (select from account where kind = 'pocket' and envelope_id = p_envelope and pending_debit > 0)
    or has_open_attempt(p_envelope) then return 'open_holds'; end if;
  if exists (select from envelope where parent_id = p_envelope and gate <> 'closed') then return 'open_children'; end if;
  for item in
    select p.id as pocket, p.posted_credit - p.posted_debit as remainder, parent.id as parent
    from account p left join account parent on parent.kind = 'pocket' and parent.envelope_id = v_envelope.parent_id
      and parent.balance_class = p.balance_class and parent.currency = p.currency
    where p.kind = 'pocket' and p.envelope_id = p_envelope and p.posted_credit > p.posted_debit order by p.id
  loop
    if item.parent is null then
      perform send_home(p_project, p_envelope, item.pocket, item.remainder);
    else
      perform post_transfer(uuidv7(), p_project, 'return', item.pocket, item.parent, item.remainder,
        jsonb_build_object('envelope_id', p_envelope, 'run_id', v_envelope.run_id));
    end if;
  end loop;
  update account set gate = 'closed' where kind = 'pocket' and envelope_id = p_envelope;
  update envelope set gate = 'closed', gate_reason = coalesce(p_reason, gate_reason), closed_at = clock_timestamp()
    where id = p_envelope;
  perform pg_notify('purser_gate', p_envelope::text);
  return 'closed';
end
$$;

grant execute on function settle to purser_app;
revoke execute on function settle, excess_of, lock_branch, standing_wallet, bring_down, bring_to_root, beyond_cap,
  lock_way_home, kept_at_home, is_same_opening, is_same_correction, has_open_attempt from public;
