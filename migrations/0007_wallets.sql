-- Wallets made whole: credit comes, goes and comes back by lots, currencies are exchanged at a quote, and deposits can be
-- reversed, refunded and expire.
-- A lot is changed under the lock of its wallet account only, so that nobody waits for a lot.

create index lot_to_draw on lot (account_id, priority, expires_at, id) where free > 0;
create unique index lot_opening on lot (account_id) where source = 'opening';
-- What went into an envelope and home again, without the calls in between.
create index transfer_of_funding on transfer (envelope_id, seq) where code in ('top_up', 'return');

create or replace function ensure_counterparties(p_project uuid, p_currency text) returns void
language sql as $$
  insert into account (id, project_id, kind, currency)
  select uuidv7(), p_project, k.kind, p_currency
  from unnest(array['outside', 'provider_cost', 'overage', 'exchange', 'breakage']) as k(kind)
  where not exists (
    select from account a where a.project_id = p_project and a.kind = k.kind and a.currency = p_currency
  )
  on conflict do nothing
$$;

-- The wallet's account of one class and currency, made if it is missing, and locked. The caller holds no lock that comes
-- after wallet accounts, unless it holds those of all accounts that the wallet had.
create function wallet_account(p_project uuid, p_wallet uuid, p_class text, p_currency text) returns uuid
language plpgsql as $$
declare
  v_account uuid;
begin
  insert into account (id, project_id, kind, wallet_id, balance_class, currency)
    select uuidv7(), p_project, 'wallet', p_wallet, p_class, p_currency
    where not exists (select from account a where a.kind = 'wallet' and a.wallet_id = p_wallet
      and a.balance_class = p_class and a.currency = p_currency)
    on conflict do nothing;
  select id into v_account from account where kind = 'wallet' and wallet_id = p_wallet and balance_class = p_class
    and currency = p_currency for no key update;
  return v_account;
end
$$;

-- Takes money out of the lots of a wallet account: by priority, then expiry, then id. One row per lot, and for an account
-- without lots one row without a lot. The caller holds the account's lock, has looked that it has the money, and posts one
-- movement per row, tagged with its lot. It takes from what has expired as well: who may not, breaks that first.
create function lot_take(p_account uuid, p_amount bigint) returns table (lot_id uuid, amount bigint)
language plpgsql as $$
declare
  v_lot record;
  v_left bigint := p_amount;
begin
  if p_amount = 0 then return; end if;
  if not exists (select from account a where a.id = p_account and a.kind = 'wallet' and a.balance_class = 'credit') then
    return query select null::uuid, p_amount; return;
  end if;
  for v_lot in
    select l.id, l.free from lot l where l.account_id = p_account and l.free > 0 order by l.priority, l.expires_at, l.id
  loop
    lot_id := v_lot.id;
    amount := least(v_left, v_lot.free);
    update lot l set free = l.free - amount where l.id = v_lot.id;
    return next;
    v_left := v_left - amount;
    exit when v_left = 0;
  end loop;
  if v_left <> 0 then
    raise exception 'the lots of account % lack % of %', p_account, v_left, p_amount using errcode = 'check_violation';
  end if;
end
$$;

-- The lot for credit that belongs to none: from before lots, or from a correction.
create function lot_opening(p_account uuid) returns uuid
language plpgsql as $$
declare
  v_lot uuid;
begin
  insert into lot (id, project_id, account_id, source, free)
    select uuidv7(), a.project_id, a.id, 'opening', 0 from account a
    where a.id = p_account and not exists (select from lot l where l.account_id = p_account and l.source = 'opening')
    on conflict do nothing;
  select id into v_lot from lot where account_id = p_account and source = 'opening';
  return v_lot;
end
$$;

-- Puts money into a lot of a wallet account (null: the opening lot) and says which: the movement's tag. Null for an account
-- without lots. The caller holds the account's lock and posts the movement.
create function lot_give(p_account uuid, p_amount bigint, p_lot uuid) returns uuid
language plpgsql as $$
declare
  v_lot uuid := p_lot;
begin
  if not exists (select from account a where a.id = p_account and a.kind = 'wallet' and a.balance_class = 'credit') then
    return null;
  end if;
  if not exists (select from lot l where l.id = p_lot and l.account_id = p_account) then
    v_lot := lot_opening(p_account);
  end if;
  update lot l set free = l.free + p_amount where l.id = v_lot;
  return v_lot;
end
$$;

-- The most that one movement may carry, and nothing below one nano: 10^15 nano are 1 000 000 of the currency.
create function is_amount(p_amount numeric) returns boolean
language sql immutable as $$
  select coalesce(p_amount >= 1 and p_amount <= 1000000000000000 and p_amount = trunc(p_amount), false)
$$;

-- What is left of a wallet account's lots that are due expires: of all, or of `p_limit` at most. A lot does not expire while
-- its money is in an envelope: what comes back later is broken then. The caller holds the account's lock.
create function break_lots(p_project uuid, p_account uuid, p_limit integer default null) returns integer
language plpgsql as $$
declare
  v_lot lot;
  v_currency text;
  v_broken integer := 0;
begin
  for v_lot in
    select * from lot where account_id = p_account and free > 0 and expires_at <= clock_timestamp() order by id
    limit p_limit
  loop
    if v_broken = 0 then
      select currency into v_currency from account where id = p_account;
      perform ensure_counterparties(p_project, v_currency);
    end if;
    update lot set free = 0 where id = v_lot.id;
    perform post_transfer(uuidv7(), p_project, 'breakage', p_account, counterparty(p_project, 'breakage', v_currency),
      v_lot.free, jsonb_build_object('lot_id', v_lot.id));
    v_broken := v_broken + 1;
  end loop;
  return v_broken;
end
$$;

-- Breaks at most `p_limit` lots that are due, of any tenant, and says how many. Who finds an account locked leaves it to the
-- next turn, or to whoever holds it; and a wallet that is wrong (`verify` names it), or whose clock is ahead, does not keep
-- the others' from expiring, however many there are.
create function expire_lots(p_limit integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_account account;
  v_now timestamptz := clock_timestamp();
  v_broken integer := 0;
begin
  for v_account in
    select a.* from account a where a.id in (
      select l.account_id from lot l where l.expires_at <= v_now and l.free > 0
    ) order by a.id for no key update skip locked
  loop
    exit when v_broken >= p_limit;
    begin
      v_broken := v_broken + break_lots(v_account.project_id, v_account.id, p_limit - v_broken);
    exception when check_violation or sqlstate 'PU001' then
      raise warning 'the lots of account % cannot expire: %', v_account.id, sqlerrm;
    end;
  end loop;
  return v_broken;
end
$$;

-- What a project owes: attempts that cost more than anything it had, and reversed deposits that it had spent.
create or replace function project_debt(p_project uuid, p_currency text) returns bigint
language sql stable as $$
  select coalesce(sum(case when t.debit_account = o.id then t.amount else -t.amount end), 0)::bigint
  from account o
  join transfer t on t.project_id = o.project_id and t.currency = o.currency
    and t.code in ('overage', 'debt_payment', 'correction', 'reversal')
    and (t.debit_account = o.id or t.credit_account = o.id)
  where o.project_id = p_project and o.kind = 'overage' and o.currency = p_currency
$$;

drop index transfer_of_debt;
create index transfer_of_debt on transfer (project_id, currency)
  where code in ('overage', 'debt_payment', 'correction', 'reversal');

drop function deposit(uuid, uuid, uuid, text, text, bigint, text);

-- Whether a deposit that is known by its reference is the one that is asked for.
create function is_same_deposit(p_known transfer, p_wallet uuid, p_class text, p_currency text, p_amount numeric, p_lot lot)
returns boolean
language sql stable as $$
  select p_known.amount = p_amount and p_known.currency = p_currency
    and exists (select from account a
      where a.id = p_known.credit_account and a.wallet_id = p_wallet and a.balance_class = p_class)
    and (p_known.lot_id is null or exists (select from lot l where l.id = p_known.lot_id
      and (l.source, l.priority, l.expires_at) is not distinct from (p_lot.source, p_lot.priority, p_lot.expires_at)))
$$;

-- outside -> wallet. Credit becomes a lot; `p_lot`: {source, priority, expires_at}, all optional. A debt is paid first: out
-- of the new lot, then out of what else the account has.
-- Verdicts: deposited | replayed | reference_mismatch | unknown_wallet | invalid_amount | invalid_reference |
-- wrong_currency | wrong_lot (direct money with a lot, or the source that is reserved) | lot_expired.
create function deposit(p_project uuid, p_wallet uuid, p_id uuid, p_class text, p_currency text, p_amount numeric,
  p_reference text, p_lot jsonb default null) returns table (verdict text, transfer_id uuid, debt_paid bigint)
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_account uuid;
  v_known transfer;
  v_lot lot;
  v_draw record;
  v_debt bigint;
  v_owed bigint;
begin
  perform from wallet where id = p_wallet and project_id = p_project for no key update;
  if not found then return query select 'unknown_wallet', null::uuid, 0::bigint; return; end if;
  v_lot.source := coalesce(p_lot->>'source', 'deposit');
  v_lot.priority := coalesce((p_lot->>'priority')::integer, 100);
  v_lot.expires_at := (p_lot->>'expires_at')::timestamptz;
  select * into v_known from transfer
    where project_id = p_project and reference = p_reference and code = 'deposit';
  if found then
    return query select case when is_same_deposit(v_known, p_wallet, p_class, p_currency, p_amount, v_lot)
      then 'replayed' else 'reference_mismatch' end, v_known.id, 0::bigint;
    return;
  end if;
  verdict := case
    when not is_amount(p_amount) then 'invalid_amount'
    when coalesce(p_reference, '') = '' then 'invalid_reference'
    when p_currency is null or p_currency !~ '^[A-Z]{3}$' then 'wrong_currency'
    when p_class <> 'credit' and p_lot is not null or v_lot.source = 'opening' then 'wrong_lot'
    when v_lot.expires_at <= clock_timestamp() then 'lot_expired'
  end;
  if verdict is not null then return query select verdict, null::uuid, 0::bigint; return; end if;
  -- Counterparties come after the account, as where lots are broken: two who make them wait for one another.
  v_account := wallet_account(p_project, p_wallet, p_class, p_currency);
  perform ensure_counterparties(p_project, p_currency);
  perform break_lots(p_project, v_account);
  if p_class = 'credit' then
    insert into lot (id, project_id, account_id, source, priority, expires_at, free)
      values (uuidv7(), p_project, v_account, v_lot.source, v_lot.priority, v_lot.expires_at, p_amount) returning * into v_lot;
  end if;
  perform post_transfer(p_id, p_project, 'deposit', counterparty(p_project, 'outside', p_currency), v_account,
    p_amount::bigint, jsonb_build_object('reference', p_reference, 'lot_id', v_lot.id));
  v_debt := project_debt(p_project, p_currency);
  debt_paid := 0;
  if v_debt > 0 then
    debt_paid := least(v_debt, (select posted_credit - posted_debit from account where id = v_account));
    v_owed := least(debt_paid, p_amount);
    update lot set free = free - v_owed where id = v_lot.id;
    perform post_transfer(uuidv7(), p_project, 'debt_payment', v_account, counterparty(p_project, 'overage', p_currency),
      v_owed, jsonb_build_object('lot_id', v_lot.id));
    for v_draw in select * from lot_take(v_account, debt_paid - v_owed) loop
      perform post_transfer(uuidv7(), p_project, 'debt_payment', v_account, counterparty(p_project, 'overage', p_currency),
        v_draw.amount, jsonb_build_object('lot_id', v_draw.lot_id));
    end loop;
  end if;
  return query select 'deposited', p_id, debt_paid;
end
$$;

-- wallet -> outside: takes a whole deposit back, once. What lies idle in standing pockets is recalled for it; what has
-- expired of the deposit's lot is taken back from `breakage`, for nobody ever had it. What is missing then is refused, or
-- with `p_owe` becomes the project's debt.
-- Verdicts: reversed | already_reversed | unknown_deposit | wallet_short. `taken` is what was there, `expired` what had
-- expired, `owed` the rest.
create function reverse_deposit(p_project uuid, p_deposit uuid, p_id uuid, p_owe boolean)
returns table (verdict text, transfer_id uuid, taken bigint, expired bigint, owed bigint)
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_deposit transfer;
  v_account account;
  v_lot uuid;
  v_outside uuid;
  v_tags jsonb;
  v_id uuid := p_id;
begin
  taken := 0;
  expired := 0;
  owed := 0;
  select * into v_deposit from transfer where id = p_deposit and project_id = p_project and code = 'deposit';
  verdict := 'unknown_deposit';
  if not found then return next; return; end if;
  select * into v_account from account where id = v_deposit.credit_account for no key update;
  select t.id into transfer_id from transfer t where t.reverses = p_deposit order by t.seq limit 1;
  verdict := 'already_reversed';
  if found then return next; return; end if;
  if v_account.balance_class = 'credit' then v_lot := coalesce(v_deposit.lot_id, lot_opening(v_account.id)); end if;
  taken := least(v_deposit.amount, recall_for(p_project, v_account.id, v_lot, v_deposit.amount));
  expired := least(v_deposit.amount - taken, (
    select coalesce(sum(t.amount), 0) from transfer t where t.lot_id = v_deposit.lot_id and t.code = 'breakage'));
  owed := v_deposit.amount - taken - expired;
  verdict := 'wallet_short';
  if owed > 0 and not p_owe then return next; return; end if;
  v_tags := jsonb_build_object('reverses', p_deposit);
  v_outside := counterparty(p_project, 'outside', v_deposit.currency);
  if taken > 0 then
    update lot l set free = l.free - taken where l.id = v_lot;
    perform post_transfer(v_id, p_project, 'reversal', v_account.id, v_outside, taken,
      v_tags || jsonb_build_object('lot_id', v_lot));
    v_id := uuidv7();
  end if;
  if expired > 0 then
    perform post_transfer(v_id, p_project, 'reversal', counterparty(p_project, 'breakage', v_deposit.currency), v_outside,
      expired, v_tags || jsonb_build_object('lot_id', v_lot));
    v_id := uuidv7();
  end if;
  if owed > 0 then
    perform post_transfer(v_id, p_project, 'reversal', counterparty(p_project, 'overage', v_deposit.currency), v_outside,
      owed, v_tags);
  end if;
  verdict := 'reversed';
  transfer_id := p_id;
  return next;
end
$$;

-- wallet -> outside: direct money that the project wants back. Credit is not refundable, nor is anything while a debt stands.
-- Verdicts: refunded | replayed | reference_mismatch | unknown_wallet | invalid_amount | invalid_reference | not_refundable |
-- wrong_currency | debt_outstanding | wallet_short. `free` is what the wallet has, with what lay idle in standing pockets.
create function refund(p_project uuid, p_wallet uuid, p_id uuid, p_class text, p_currency text, p_amount numeric,
  p_reference text) returns table (verdict text, transfer_id uuid, free bigint)
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_account account;
  v_known transfer;
begin
  perform from wallet where id = p_wallet and project_id = p_project for no key update;
  if not found then return query select 'unknown_wallet', null::uuid, 0::bigint; return; end if;
  select * into v_known from transfer where project_id = p_project and reference = p_reference and code = 'refund';
  if found then
    return query select case when p_class = 'direct' and v_known.amount = p_amount and v_known.currency = p_currency
      then 'replayed' else 'reference_mismatch' end, v_known.id, 0::bigint;
    return;
  end if;
  select * into v_account from account where kind = 'wallet' and wallet_id = p_wallet and balance_class = p_class
    and currency = p_currency for no key update;
  free := coalesce(v_account.posted_credit - v_account.posted_debit - v_account.pending_debit, 0);
  verdict := case
    when not is_amount(p_amount) then 'invalid_amount'
    when coalesce(p_reference, '') = '' then 'invalid_reference'
    when p_class is distinct from 'direct' then 'not_refundable'
    when v_account.id is null then 'wrong_currency'
    when project_debt(p_project, p_currency) > 0 then 'debt_outstanding'
  end;
  if verdict is null then
    free := recall_for(p_project, v_account.id, null, p_amount::bigint);
    if p_amount > free then verdict := 'wallet_short'; end if;
  end if;
  if verdict is not null then return query select verdict, null::uuid, free; return; end if;
  perform post_transfer(p_id, p_project, 'refund', v_account.id, counterparty(p_project, 'outside', p_currency),
    p_amount::bigint, jsonb_build_object('reference', p_reference));
  return query select 'refunded', p_id, free - p_amount::bigint;
end
$$;

-- The rate at which a project's organisation exchanges now: the newest of its quotes that has begun and not expired.
create function quote_in_force(p_project uuid, p_sell text, p_buy text) returns quote
language sql stable as $$
  select q from quote q join project p on p.organisation_id = q.organisation_id
  where p.id = p_project and q.sell_currency = p_sell and q.buy_currency = p_buy and q.effective_at <= clock_timestamp()
    and (q.expires_at is null or q.expires_at > clock_timestamp())
  order by q.effective_at desc, q.id desc limit 1
$$;

-- What is asked for, each with its wallet account, its quote, and what goes into the pocket: all that was sold at the quote,
-- rounded down.
create function priced_fundings(p_project uuid, p_wallet uuid, p_items jsonb) returns jsonb
language sql stable as $$
  select jsonb_agg(jsonb_build_object('id', coalesce(i.id, uuidv7()), 'balance_class', i.balance_class,
    'currency', i.currency, 'amount', i.amount, 'account', a.id, 'quote', q.id,
    'exchanges', i.exchange_to is not null, 'pocket_currency', coalesce(i.exchange_to, i.currency),
    'bought', case when i.exchange_to is null then i.amount else div(i.amount * q.buy, q.sell) end) order by a.id, i.id)
  from jsonb_to_recordset(p_items) as i(id uuid, balance_class text, currency text, amount numeric, exchange_to text)
  left join account a on a.kind = 'wallet' and a.wallet_id = p_wallet and a.balance_class = i.balance_class
    and a.currency = i.currency
  left join lateral quote_in_force(p_project, i.currency, i.exchange_to) q on i.exchange_to is not null
$$;

-- The first reason why fundings are refused, or no row. The caller holds the locks of the wallet accounts, and has broken
-- what was due in them.
create function refused_funding(p_project uuid, p_fundings jsonb, p_opens boolean)
returns table (reason text, balance_class text, currency text, asked bigint, free bigint)
language sql stable as $$
  with funding as (
    select * from jsonb_to_recordset(p_fundings) as f(balance_class text, currency text, amount numeric, account uuid,
      quote uuid, exchanges boolean, pocket_currency text, bought numeric)
  ), wrong as (
    select 1 as rank, 'invalid_amount' as reason, balance_class, currency, null::bigint as asked, null::bigint as free
    from funding where not is_amount(amount)
    union all
    select 2, 'wrong_currency', balance_class, pocket_currency, null, null
    from funding where currency is null or exchanges and (currency = pocket_currency or pocket_currency !~ '^[A-Z]{3}$')
    union all
    select 3, 'no_quote', balance_class, pocket_currency, null, null from funding where exchanges and quote is null
    union all
    select 4, 'invalid_amount', balance_class, pocket_currency, null, null
    from funding where exchanges and is_amount(amount) and not is_amount(bought)
    union all
    select 5, 'debt_outstanding', balance_class, d.currency, project_debt(p_project, d.currency), null
    from funding cross join lateral (values (currency), (pocket_currency)) as d(currency)
    where p_opens and project_debt(p_project, d.currency) > 0
    union all
    select 6, 'wallet_short', f.balance_class, f.currency, sum(f.amount)::bigint,
      coalesce(max(a.posted_credit - a.posted_debit - a.pending_debit), 0)
    from funding f left join account a on a.id = f.account where is_amount(f.amount)
    group by f.balance_class, f.currency
    having sum(f.amount) > coalesce(max(a.posted_credit - a.posted_debit - a.pending_debit), 0)
  )
  select w.reason, w.balance_class, w.currency, w.asked, w.free from wrong w
  order by w.rank, w.balance_class, w.currency limit 1
$$;

-- wallet -> pockets of one envelope; creates pockets as needed. `p_items`: [{id, balance_class, currency, amount,
-- exchange_to}]: amount and currency are the wallet's, exchange_to is the pocket's currency when it is another one.
-- The caller has locked nothing. Returns no row when all is moved, or why not. A debt of the project stops what opens, not
-- what goes on.
create or replace function fund_envelope(p_project uuid, p_envelope uuid, p_items jsonb, p_opens boolean)
returns table (reason text, balance_class text, currency text, asked bigint, free bigint)
language plpgsql as $$
#variable_conflict use_column
declare
  item record;
  v_envelope envelope;
  v_fundings jsonb;
begin
  perform from account a join envelope e on e.wallet_id = a.wallet_id and e.id = p_envelope and e.project_id = p_project
    where a.kind = 'wallet' order by a.id for no key update of a;
  select * into v_envelope from envelope e where e.id = p_envelope and e.project_id = p_project for no key update;
  if not found then
    return query select 'unknown_envelope', null::text, null::text, null::bigint, null::bigint; return;
  end if;
  if v_envelope.gate in ('closing', 'closed') then
    return query select 'envelope_closed', null::text, null::text, null::bigint, null::bigint; return;
  end if;
  v_fundings := priced_fundings(p_project, v_envelope.wallet_id, p_items);
  perform break_lots(p_project, a.account)
    from (select distinct (f->>'account')::uuid as account from jsonb_array_elements(v_fundings) f) a;
  return query select * from refused_funding(p_project, v_fundings, p_opens);
  if found then return; end if;
  insert into account (id, project_id, kind, envelope_id, balance_class, currency, gate)
    select uuidv7(), p_project, 'pocket', p_envelope, f.balance_class, f.pocket_currency, v_envelope.gate
    from (select distinct balance_class, pocket_currency
      from jsonb_to_recordset(v_fundings) as f(balance_class text, pocket_currency text)) f
    where not exists (select from account a where a.kind = 'pocket' and a.envelope_id = p_envelope
      and a.balance_class = f.balance_class and a.currency = f.pocket_currency)
    on conflict do nothing;
  perform from account a where a.kind = 'pocket' and a.envelope_id = p_envelope order by a.id for no key update;
  for item in
    select f.*, p.id as pocket
    from rows from (jsonb_to_recordset(v_fundings) as (id uuid, balance_class text, currency text, amount bigint,
      account uuid, quote uuid, exchanges boolean, pocket_currency text, bought bigint)) with ordinality as f(id,
      balance_class, currency, amount, account, quote, exchanges, pocket_currency, bought, place)
    join account p on p.kind = 'pocket' and p.envelope_id = p_envelope and p.balance_class = f.balance_class
      and p.currency = f.pocket_currency
    order by f.place
  loop
    perform move_funding(p_project, v_envelope, to_jsonb(item));
  end loop;
end
$$;

-- One funding, with the locks held: a movement per lot, and over the exchange one more, into the pocket. The movement that
-- reaches the pocket first has the funding's id.
create function move_funding(p_project uuid, p_envelope envelope, p_funding jsonb) returns void
language plpgsql as $$
declare
  item record;
  v_draw record;
  v_target uuid;
  v_tags jsonb;
  v_id uuid;
begin
  select * into item from jsonb_to_record(p_funding) as f(id uuid, currency text, amount bigint, account uuid, quote uuid,
    exchanges boolean, pocket_currency text, bought bigint, pocket uuid);
  v_tags := jsonb_build_object('envelope_id', p_envelope.id, 'run_id', p_envelope.run_id, 'quote_id', item.quote);
  v_target := item.pocket;
  v_id := item.id;
  if item.exchanges then
    perform ensure_counterparties(p_project, item.currency), ensure_counterparties(p_project, item.pocket_currency);
    v_target := counterparty(p_project, 'exchange', item.currency);
    v_id := uuidv7();
  end if;
  for v_draw in select * from lot_take(item.account, item.amount) loop
    perform post_transfer(v_id, p_project, 'top_up', item.account, v_target, v_draw.amount,
      v_tags || jsonb_build_object('lot_id', v_draw.lot_id));
    v_id := uuidv7();
  end loop;
  if item.exchanges then
    perform post_transfer(item.id, p_project, 'top_up', counterparty(p_project, 'exchange', item.pocket_currency), item.pocket,
      item.bought, v_tags);
  end if;
end
$$;

-- Sends money of a pocket home the way it came: along the fundings of its envelope, last drawn first, net of what already
-- went back along each, in each with its lot and at its quote. Over the exchange it is rounded down, never more than was
-- sold, and exactly that when all that was bought comes back. What no funding brought goes to the account's opening lot.
-- The caller holds the locks of the wallet's accounts and of the pocket, and has looked that the pocket has the money.
create function send_home(p_project uuid, p_envelope uuid, p_pocket uuid, p_amount bigint) returns void
language plpgsql as $$
declare
  leg record;
  v_pocket account;
  v_envelope envelope;
  v_tags jsonb;
  v_key text;
  v_net bigint;
  v_part bigint;
  v_back jsonb := '{}';
  v_left bigint := p_amount;
  v_all_sold boolean := false;
  v_sold bigint := 0;
begin
  select * into v_pocket from account where id = p_pocket;
  select * into v_envelope from envelope where id = p_envelope;
  v_tags := jsonb_build_object('envelope_id', p_envelope, 'run_id', v_envelope.run_id);
  for leg in
    select t.code, t.amount, t.quote_id, q.sell, q.buy, case when t.code = 'top_up' then d.kind || ' ' || c.kind
      else c.kind || ' ' || d.kind end as way, w.id as account, coalesce(t.lot_id, opening.id) as lot,
      case when t.code = 'top_up' then d.id else c.id end as source
    from transfer t
    join account d on d.id = t.debit_account
    join account c on c.id = t.credit_account
    left join account w on w.id = case when d.kind = 'wallet' then d.id when c.kind = 'wallet' then c.id end
    left join lot opening on opening.account_id = w.id and opening.source = 'opening'
    left join quote q on q.id = t.quote_id
    where t.envelope_id = p_envelope and t.code in ('top_up', 'return') and (p_pocket in (d.id, c.id)
      or 'exchange' in (d.kind, c.kind) and w.balance_class = v_pocket.balance_class
        and q.buy_currency = v_pocket.currency)
    order by t.seq desc
  loop
    v_key := concat_ws(' ', leg.way, leg.quote_id, leg.account, leg.lot);
    if leg.code = 'return' then
      v_back := v_back || jsonb_build_object(v_key, coalesce((v_back->>v_key)::bigint, 0) + leg.amount);
      continue;
    end if;
    exit when v_left = 0 and leg.way <> 'wallet exchange';
    v_net := greatest(leg.amount - coalesce((v_back->>v_key)::bigint, 0), 0);
    v_back := v_back || jsonb_build_object(v_key, coalesce((v_back->>v_key)::bigint, 0) - (leg.amount - v_net));
    if leg.way = 'wallet pocket' then
      v_part := least(v_net, v_left);
      v_left := v_left - v_part;
      perform post_home(p_project, p_pocket, leg.account, v_part, leg.lot, v_tags);
    elsif leg.way = 'exchange pocket' then
      v_part := least(v_net, v_left);
      v_left := v_left - v_part;
      v_all_sold := v_part = v_net;
      v_sold := div(v_part::numeric * leg.sell, leg.buy);
      if v_part > 0 then
        perform post_transfer(uuidv7(), p_project, 'return', p_pocket, leg.source, v_part,
          v_tags || jsonb_build_object('quote_id', leg.quote_id));
      end if;
    elsif leg.way = 'wallet exchange' then
      v_part := case when v_all_sold then v_net else least(v_net, v_sold) end;
      v_sold := v_sold - v_part;
      perform post_home(p_project, counterparty(p_project, 'exchange', (select currency from account where id = leg.account)),
        leg.account, v_part, leg.lot, v_tags || jsonb_build_object('quote_id', leg.quote_id));
    end if;
  end loop;
  if v_left > 0 then
    perform post_home(p_project, p_pocket,
      wallet_account(p_project, v_envelope.wallet_id, v_pocket.balance_class, v_pocket.currency), v_left, null, v_tags);
  end if;
end
$$;

create function post_home(p_project uuid, p_source uuid, p_account uuid, p_amount bigint, p_lot uuid, p_tags jsonb)
returns void
language plpgsql as $$
begin
  if p_amount = 0 then return; end if;
  perform post_transfer(uuidv7(), p_project, 'return', p_source, p_account, p_amount,
    p_tags || jsonb_build_object('lot_id', lot_give(p_account, p_amount, p_lot)));
end
$$;

-- Sends the remainder to the parent's pockets, or home, and closes, if no hold is open.
-- Verdicts: closed | open_holds | open_children | unknown.
create or replace function close_envelope(p_project uuid, p_envelope uuid, p_reason text) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
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
  if exists (select from account where kind = 'pocket' and envelope_id = p_envelope and pending_debit > 0) then
    return 'open_holds';
  end if;
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

grant execute on function deposit, reverse_deposit, refund, expire_lots to purser_app;
revoke execute on function deposit, reverse_deposit, refund, expire_lots, wallet_account, lot_take,
  lot_opening, lot_give, is_amount, break_lots, is_same_deposit, quote_in_force, priced_fundings,
  refused_funding, move_funding, send_home, post_home from public;
