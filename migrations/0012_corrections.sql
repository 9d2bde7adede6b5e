-- Late truth about attempts: it is booked beside what was charged, and its money goes, and comes, the way that the
-- attempt's money went, whatever has been closed since.

-- What attempts cost beyond and after their captures. Rare: found by attempt, however many calls an envelope has.
create index transfer_beyond_capture on transfer (call_id, attempt) where code in ('overage', 'correction');

-- What an attempt was charged so far, or up to a place in the journal.
create function charged_of(p_hold transfer, p_seq bigint default null) returns bigint
language sql stable as $$
  select (select r.amount from transfer r where r.pending_id = p_hold.id) + coalesce((
    select sum(case when t.credit_account = p_hold.credit_account then t.amount else -t.amount end) from transfer t
    where t.call_id = p_hold.call_id and t.attempt = p_hold.attempt and t.code in ('overage', 'correction')
      and (p_seq is null or t.seq <= p_seq)
  ), 0)::bigint
$$;

-- What of an attempt's cost nothing covered, less what corrections took off that.
create function owed_of(p_hold transfer) returns bigint
language sql stable as $$
  select coalesce(sum(case when t.debit_account = o.id then t.amount else -t.amount end), 0)::bigint
  from transfer t, (select counterparty(p_hold.project_id, 'overage', p_hold.currency) as id) o
  where t.call_id = p_hold.call_id and t.attempt = p_hold.attempt and t.code in ('overage', 'correction')
    and o.id in (t.debit_account, t.credit_account)
$$;

-- Whether an attempt counts as a call: it does unless it was voided, or late truth says that it cost nothing.
create function is_call(p_hold transfer, p_charged bigint) returns boolean
language sql stable as $$
  select case when exists (
    select from transfer t where t.call_id = p_hold.call_id and t.attempt = p_hold.attempt
      and t.code in ('overage', 'correction') and t.code = 'correction'
  ) then p_charged > 0 else exists (select from transfer r where r.pending_id = p_hold.id and r.code = 'capture') end
$$;

-- Locks what a correction may change, but for the pockets of a tree that is closed: those come with the idle ones that
-- are recalled. The wallet itself is locked so that whatever pays a debt comes one by one. Says which pockets lie on the
-- way from the attempt's up to the root's, and the first of them that is not closed: while the wallet's accounts are
-- locked, no root closes.
create function lock_way_home(p_pocket account, out pockets uuid[], out open integer)
language plpgsql as $$
declare
  v_wallet uuid := (select e.wallet_id from envelope e where e.id = p_pocket.envelope_id);
begin
  perform from wallet where id = v_wallet for no key update;
  perform from account where kind = 'wallet' and wallet_id = v_wallet order by id for no key update;
  pockets := pockets_above(p_pocket);
  if (select gate from account where id = pockets[cardinality(pockets)]) = 'closed' then return; end if;
  perform from account where id = any(pockets) order by id for no key update;
  select min(w.hop) into open from unnest(pockets) with ordinality as w(id, hop) join account a on a.id = w.id
    where a.gate <> 'closed';
end
$$;

-- The ways on which an envelope was funded, the last one first, each with its wallet account and its quote; then the
-- wallet's account in the pocket's own currency.
create function ways_of_funding(p_envelope envelope, p_pocket account)
returns table (account uuid, currency text, quote uuid, sell bigint, buy bigint)
language sql stable as $$
  select a.id, a.currency, w.quote_id, coalesce(q.sell, 1), coalesce(q.buy, 1)
  from (
    select f.quote_id, max(f.seq) as seq from (
      select t.quote_id, t.seq from transfer t
        where t.envelope_id = p_envelope.id and t.code = 'top_up' and t.credit_account = p_pocket.id
      union all select null, 0
    ) f group by f.quote_id
  ) w
  left join quote q on q.id = w.quote_id
  join account a on a.kind = 'wallet' and a.wallet_id = p_envelope.wallet_id
    and a.balance_class = p_pocket.balance_class and a.currency = coalesce(q.sell_currency, p_pocket.currency)
  order by w.seq desc
$$;

-- Brings money from the wallet to the pocket of a closed root, on the ways it was funded: over the exchange at the quote
-- it went out with, rounded up. Money that lies idle in standing envelopes is recalled first. Says how much it brought.
create function fund_late(p_project uuid, p_pockets uuid[], p_amount bigint) returns bigint
language plpgsql as $$
declare
  way record;
  v_pocket account;
  v_root envelope;
  v_bought numeric;
  v_left numeric := p_amount;
  v_short jsonb := '[]';
begin
  select * into v_pocket from account where id = p_pockets[cardinality(p_pockets)];
  select * into v_root from envelope where id = v_pocket.envelope_id;
  for way in select w.*, free_of(a) as free from ways_of_funding(v_root, v_pocket) w join account a on a.id = w.account loop
    v_short := v_short || jsonb_build_object('balance_class', v_pocket.balance_class, 'currency', way.currency,
      'amount', div(v_left * way.sell + way.buy - 1, way.buy));
    v_left := v_left - least(v_left, div(way.free::numeric * way.buy, way.sell));
    exit when v_left = 0;
  end loop;
  perform recall_idle(p_project, v_root.wallet_id, array(select a.envelope_id from account a where a.id = any(p_pockets)),
    case when v_left = 0 then '[]' else v_short end);
  v_left := p_amount;
  for way in select * from ways_of_funding(v_root, v_pocket) loop
    v_bought := (select least(v_left, div(free_of(a)::numeric * way.buy, way.sell)) from account a where a.id = way.account);
    continue when v_bought = 0;
    perform move_funding(p_project, v_root, jsonb_build_object('id', uuidv7(), 'currency', way.currency,
      'amount', div(v_bought * way.sell + way.buy - 1, way.buy), 'account', way.account, 'quote', way.quote,
      'exchanges', way.quote is not null, 'pocket_currency', v_pocket.currency, 'bought', v_bought, 'pocket', v_pocket.id));
    v_left := v_left - v_bought;
  end loop;
  return p_amount - v_left;
end
$$;

-- Brings money for late truth to the first of the pockets, by way of those above: from the first one that is not closed,
-- or from the wallet. Says how much: what is not there, or is beyond a child's cap, stays missing.
create function bring_late(p_project uuid, p_pockets uuid[], p_open integer, p_amount bigint) returns bigint
language plpgsql as $$
declare
  v_top integer := coalesce(p_open, cardinality(p_pockets));
  v_amount bigint;
begin
  select least(p_amount, min(greatest(0, p.cap - coalesce(g.given, 0) + coalesce(b.back, 0)))) into v_amount
  from unnest(p_pockets[1:v_top - 1]) as w(id) join account p on p.id = w.id and p.cap is not null
  cross join lateral (
    select sum(t.amount) as given from transfer t where t.credit_account = p.id and t.code = 'carve'
  ) g
  cross join lateral (
    select sum(t.amount) as back from transfer t where t.debit_account = p.id and t.code = 'return'
  ) b;
  if p_open is null then
    v_amount := fund_late(p_project, p_pockets, v_amount);
  else
    v_amount := least(v_amount, (select free_of(a) from account a where a.id = p_pockets[p_open]));
  end if;
  if v_amount = 0 then return 0; end if;
  for hop in reverse v_top - 1 .. 1 loop
    perform post_transfer(uuidv7(), p_project, 'carve', p_pockets[hop + 1], p_pockets[hop], v_amount,
      tags_of_pocket(p_pockets[hop]));
  end loop;
  return v_amount;
end
$$;

-- Sends money home from the first of the pockets, by way of those above: to the first one that is not closed, or to the
-- wallet.
create function return_late(p_project uuid, p_pockets uuid[], p_open integer, p_amount bigint) returns void
language plpgsql as $$
declare
  v_top integer := coalesce(p_open, cardinality(p_pockets));
begin
  for hop in 1 .. v_top - 1 loop
    perform post_transfer(uuidv7(), p_project, 'return', p_pockets[hop], p_pockets[hop + 1], p_amount,
      tags_of_pocket(p_pockets[hop]));
  end loop;
  if p_open is null then
    perform send_home(p_project, a.envelope_id, a.id, p_amount) from account a where a.id = p_pockets[v_top];
  end if;
end
$$;

create function tags_of_pocket(p_pocket uuid) returns jsonb
language sql stable as $$
  select jsonb_build_object('envelope_id', e.id, 'run_id', e.run_id)
  from account a join envelope e on e.id = a.envelope_id where a.id = p_pocket
$$;

-- What to answer to a correction without booking it: it was booked before, or, for one that voids, there is nothing to
-- take back, or the cost is known. Null when it is to be booked. The caller holds the locks.
create function known_correction(p_hold transfer, p_outcome text, p_item jsonb) returns text
language plpgsql stable as $$
declare
  v_seq bigint;
begin
  select max(t.seq) into v_seq from transfer k join transfer t on t.xid = k.xid and t.code = 'correction'
    and t.call_id = p_hold.call_id and t.attempt = p_hold.attempt
    where k.id in ((p_item->>'correction_id')::uuid, (p_item->>'debt_id')::uuid) and k.code = 'correction';
  if not coalesce((p_item->>'voids')::boolean, false) then
    return case when v_seq is null then null
      when charged_of(p_hold, v_seq) = (p_item->>'amount')::bigint then 'replayed' else 'mismatch' end;
  end if;
  return case
    when p_outcome is distinct from 'lost' then 'known'
    when exists (select from transfer r where r.pending_id = p_hold.id and r.certainty = 'billed') then 'known'
    when exists (
      select from transfer t where t.call_id = p_hold.call_id and t.attempt = p_hold.attempt
        and t.code in ('overage', 'correction') and t.certainty = 'billed'
    ) then 'known'
    when charged_of(p_hold) = 0 then 'replayed'
    when v_seq is not null then 'known' end;
end
$$;

-- Truth that comes after an attempt was resolved by estimate: stores the answer if the call has none, and books truth
-- minus what was charged, by the attempt's pocket. What comes back pays off what this attempt left as a debt; the rest
-- stays in the pocket, or goes on to the first envelope above that is not closed, or home to the wallet. What is missing
-- comes the same way, and is owed if it is nowhere.
-- p_item: {hold_id, correction_id, debt_id, amount, tokens, certainty, usage, detail, answer_id, answer, voids}; `voids`:
-- only for a lost attempt whose cost nobody knows.
-- Verdicts: corrected | replayed | mismatch (these ids with another truth) | known (of one that voids: its cost is known)
-- | unresolved | unknown_hold | invalid_amount.
create or replace function correct(p_project uuid, p_account uuid, p_item jsonb) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
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
  select * into v_way from lock_way_home(v_pocket);
  select * into v_attempt from attempt a where a.call_id = v_hold.call_id and a.number = v_hold.attempt;
  if not exists (select from transfer t where t.pending_id = item.hold_id) then return 'unresolved'; end if;
  v_known := known_correction(v_hold, v_attempt.outcome, p_item);
  if v_known is not null then return v_known; end if;

  v_charged := charged_of(v_hold);
  v_was_call := is_call(v_hold, v_charged);
  v_delta := item.amount - v_charged;
  if v_delta > 0 then
    v_moved := bring_late(p_project, v_way.pockets, v_way.open, v_delta);
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

-- One row of a correction: from a payer to the provider, or back when the amount is below zero.
create function post_correction(p_hold transfer, p_id uuid, p_payer uuid, p_amount bigint, p_tags jsonb) returns void
language sql as $$
  select post_transfer(p_id, p_hold.project_id, 'correction',
    case when p_amount > 0 then p_payer else p_hold.credit_account end,
    case when p_amount > 0 then p_hold.credit_account else p_payer end, abs(p_amount), p_tags)
$$;

revoke execute on function charged_of, owed_of, is_call, lock_way_home, ways_of_funding, fund_late, bring_late, return_late,
  tags_of_pocket, known_correction, post_correction from public;
