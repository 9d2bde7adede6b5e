-- The ledger: guarded accounts, an append-only journal, and the only functions that move money.
-- Order of locks everywhere: wallet accounts by id, then the envelope, then its pockets by id.

create table wallet (
  id uuid primary key,
  project_id uuid not null unique references project,
  created_at timestamptz not null default clock_timestamp()
);

create table envelope (
  id uuid primary key,
  project_id uuid not null,
  wallet_id uuid not null,
  run_id uuid,
  parent_id uuid,
  kind text not null check (kind in ('run', 'standing', 'child', 'wrap_up')),
  gate text not null default 'open' check (gate in ('open', 'frozen', 'closing', 'closed')),
  gate_reason text,
  created_at timestamptz not null default clock_timestamp(),
  closed_at timestamptz,
  check ((gate = 'closed') = (closed_at is not null))
);

create index envelope_by_run on envelope (run_id);

-- Wallets and pockets are guarded: they never go below zero, what is held included. Counterparties keep no balance here
-- (their counters stay zero): folding the journal gives it, and no call waits for a shared row.
create table account (
  id uuid primary key,
  project_id uuid not null,
  kind text not null check (kind in ('wallet', 'pocket', 'outside', 'provider_cost', 'revenue', 'exchange', 'overage')),
  wallet_id uuid,
  envelope_id uuid,
  balance_class text check (balance_class in ('direct', 'credit')),
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  gate text not null default 'open' check (gate in ('open', 'frozen', 'closing', 'closed')),
  posted_debit bigint not null default 0 check (posted_debit >= 0),
  posted_credit bigint not null default 0 check (posted_credit >= 0),
  pending_debit bigint not null default 0 check (pending_debit >= 0),
  pending_credit bigint not null default 0 check (pending_credit >= 0),
  version bigint not null default 0,
  created_at timestamptz not null default clock_timestamp(),
  constraint account_never_negative
    check (kind not in ('wallet', 'pocket') or posted_credit - posted_debit - pending_debit >= 0),
  check ((kind = 'wallet') = (wallet_id is not null)),
  check ((kind = 'pocket') = (envelope_id is not null)),
  check ((kind in ('wallet', 'pocket')) = (balance_class is not null))
) with (fillfactor = 30);

create unique index account_of_wallet on account (wallet_id, balance_class, currency) where kind = 'wallet';
create unique index account_of_envelope on account (envelope_id, balance_class, currency) where kind = 'pocket';
create unique index account_of_counterparty on account (project_id, kind, currency)
  where kind not in ('wallet', 'pocket');

-- One row per movement with both sides in it: it cannot be unbalanced. `hold` puts `amount` into the pending counters;
-- `capture`, `void` and `expire` take `released` out of them and post `amount`. Version, balance (posted) and held are
-- those of the guarded side right after the movement.
create table transfer (
  id uuid primary key,
  seq bigint not null generated always as identity,
  xid xid8 not null default pg_current_xact_id(),
  recorded_at timestamptz not null default clock_timestamp(),
  project_id uuid not null,
  code text not null check (code in ('deposit', 'top_up', 'hold', 'capture', 'void', 'expire', 'return', 'overage',
    'debt_payment', 'correction')),
  debit_account uuid not null,
  credit_account uuid not null,
  currency text not null,
  amount bigint not null check (amount >= 0),
  released bigint not null default 0 check (released >= 0),
  pending_id uuid,
  envelope_id uuid,
  run_id uuid,
  call_id uuid,
  attempt integer,
  certainty text check (certainty in ('billed', 'estimated', 'unknown')),
  use text check (use in ('useful', 'wasted')),
  reference text,
  debit_version bigint,
  debit_balance bigint,
  debit_held bigint,
  credit_version bigint,
  credit_balance bigint,
  credit_held bigint,
  check (debit_account <> credit_account),
  check ((code in ('capture', 'void', 'expire')) = (pending_id is not null)),
  check (code not in ('void', 'expire') or amount = 0),
  check (debit_balance is null or debit_balance >= debit_held),
  check (credit_balance is null or credit_balance >= credit_held)
);

-- A hold resolves at most once.
create unique index transfer_resolution on transfer (pending_id) where pending_id is not null;
create unique index transfer_reference on transfer (project_id, reference) where code = 'deposit';
create index transfer_by_run on transfer (run_id, seq) where run_id is not null;
create index transfer_of_debt on transfer (project_id, currency) where code in ('overage', 'debt_payment', 'correction');

create trigger transfer_is_append_only before update or delete on transfer for each row execute function refuse_change();
create trigger transfer_keeps_its_rows before truncate on transfer for each statement execute function refuse_change();

-- A hold that did not fit even if everything open came back. It closes its attempt for ever. Not a movement.
create table refusal (
  hold_id uuid primary key,
  project_id uuid not null,
  run_id uuid,
  envelope_id uuid not null,
  account_id uuid not null,
  call_id uuid not null,
  attempt integer not null,
  bound text not null check (bound in ('pocket')),
  asked bigint not null,
  free bigint not null,
  plan jsonb not null,
  recorded_at timestamptz not null default clock_timestamp(),
  check (free < asked)
);

create index refusal_by_call on refusal (call_id, attempt);
create index refusal_by_run on refusal (run_id);

create function ensure_counterparties(p_project uuid, p_currency text) returns void
language sql as $$
  insert into account (id, project_id, kind, currency)
  select uuidv7(), p_project, kind, p_currency from unnest(array['outside', 'provider_cost', 'overage']) as kind
  where not exists (
    select from account a where a.project_id = p_project and a.kind = kind and a.currency = p_currency
  )
  on conflict do nothing
$$;

create function counterparty(p_project uuid, p_kind text, p_currency text) returns uuid
language sql stable as $$
  select id from account where project_id = p_project and kind = p_kind and currency = p_currency
    and kind not in ('wallet', 'pocket')
$$;

-- What a project owes for overages: attempts that cost more than anything it had.
create function project_debt(p_project uuid, p_currency text) returns bigint
language sql stable as $$
  select coalesce(sum(case when t.debit_account = o.id then t.amount else -t.amount end), 0)::bigint
  from account o
  join transfer t on t.project_id = o.project_id and t.currency = o.currency
    and t.code in ('overage', 'debt_payment', 'correction')
    and (t.debit_account = o.id or t.credit_account = o.id)
  where o.project_id = p_project and o.kind = 'overage' and o.currency = p_currency
$$;

-- Posts one movement. The caller holds the locks of both guarded sides, in the global order, and has looked whether the
-- money is there; the table's CHECK stands behind it.
create function post_transfer(
  p_id uuid, p_project uuid, p_code text, p_debit uuid, p_credit uuid, p_amount bigint,
  p_tags jsonb default '{}'
) returns void
language plpgsql as $$
declare
  v_debit account;
  v_credit account;
begin
  update account set posted_debit = posted_debit + p_amount, version = version + 1
    where id = p_debit and project_id = p_project and kind in ('wallet', 'pocket') returning * into v_debit;
  update account set posted_credit = posted_credit + p_amount, version = version + 1
    where id = p_credit and project_id = p_project and kind in ('wallet', 'pocket') returning * into v_credit;
  insert into transfer (id, project_id, code, debit_account, credit_account, currency, amount, envelope_id, run_id,
    call_id, attempt, certainty, use, reference, debit_version, debit_balance, debit_held, credit_version,
    credit_balance, credit_held)
  select p_id, p_project, p_code, d.id, c.id, d.currency, p_amount, (p_tags->>'envelope_id')::uuid,
    (p_tags->>'run_id')::uuid, (p_tags->>'call_id')::uuid, (p_tags->>'attempt')::integer, p_tags->>'certainty',
    p_tags->>'use', p_tags->>'reference', v_debit.version, v_debit.posted_credit - v_debit.posted_debit,
    v_debit.pending_debit, v_credit.version, v_credit.posted_credit - v_credit.posted_debit, v_credit.pending_debit
  from account d, account c
  where d.id = p_debit and c.id = p_credit and d.project_id = p_project and c.project_id = p_project
    and d.currency = c.currency;
  if not found then
    raise exception 'movement % names an account of another project or currency', p_id using errcode = 'check_violation';
  end if;
end
$$;

-- outside -> wallet. Verdicts: deposited | replayed | reference_mismatch | unknown_wallet.
create function deposit(p_project uuid, p_wallet uuid, p_id uuid, p_class text, p_currency text, p_amount bigint,
  p_reference text) returns table (verdict text, transfer_id uuid, debt_paid bigint)
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_account uuid;
  v_known transfer;
  v_debt bigint;
  v_paid bigint := 0;
begin
  if p_amount <= 0 then raise exception 'a deposit is more than zero' using errcode = 'check_violation'; end if;
  perform from wallet where id = p_wallet and project_id = p_project for no key update;
  if not found then return query select 'unknown_wallet', null::uuid, 0::bigint; return; end if;
  select * into v_known from transfer
    where project_id = p_project and reference = p_reference and code = 'deposit';
  if found then
    return query select case when v_known.amount = p_amount and v_known.currency = p_currency and exists (
        select from account where id = v_known.credit_account and balance_class = p_class
      ) then 'replayed' else 'reference_mismatch' end, v_known.id, 0::bigint;
    return;
  end if;
  perform ensure_counterparties(p_project, p_currency);
  insert into account (id, project_id, kind, wallet_id, balance_class, currency)
    values (uuidv7(), p_project, 'wallet', p_wallet, p_class, p_currency) on conflict do nothing;
  select id into v_account from account
    where kind = 'wallet' and wallet_id = p_wallet and balance_class = p_class and currency = p_currency
    for no key update;
  perform post_transfer(p_id, p_project, 'deposit', counterparty(p_project, 'outside', p_currency), v_account, p_amount,
    jsonb_build_object('reference', p_reference));
  v_debt := project_debt(p_project, p_currency);
  if v_debt > 0 then
    v_paid := least(v_debt, (select posted_credit - posted_debit - pending_debit from account where id = v_account));
    perform post_transfer(uuidv7(), p_project, 'debt_payment', v_account, counterparty(p_project, 'overage', p_currency),
      v_paid);
  end if;
  return query select 'deposited', p_id, v_paid;
end
$$;

-- wallet -> pockets of one envelope; creates pockets as needed. `p_items`: [{id, balance_class, currency, amount}].
-- The caller has locked nothing. Returns no row when all is moved, or what was short. A debt of the project stops what
-- opens, not what goes on.
create function fund_envelope(p_project uuid, p_envelope uuid, p_items jsonb, p_opens boolean)
returns table (reason text, balance_class text, currency text, asked bigint, free bigint)
language plpgsql as $$
declare
  item record;
  v_envelope envelope;
  v_pocket uuid;
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
  for item in
    select i.balance_class, i.currency, sum(i.amount)::bigint as asked, project_debt(p_project, i.currency) as debt,
      coalesce((select a.posted_credit - a.posted_debit - a.pending_debit from account a
        where a.kind = 'wallet' and a.wallet_id = v_envelope.wallet_id and a.balance_class = i.balance_class
          and a.currency = i.currency), 0) as free
    from jsonb_to_recordset(p_items) as i(balance_class text, currency text, amount bigint)
    group by i.balance_class, i.currency order by 1, 2
  loop
    if p_opens and item.debt > 0 then
      return query select 'debt_outstanding', item.balance_class, item.currency, item.debt, item.free; return;
    end if;
    if item.asked > item.free then
      return query select 'wallet_short', item.balance_class, item.currency, item.asked, item.free; return;
    end if;
  end loop;
  for item in
    select i.id, i.balance_class, i.currency, i.amount, a.id as wallet_account
    from jsonb_to_recordset(p_items) as i(id uuid, balance_class text, currency text, amount bigint)
    join account a on a.kind = 'wallet' and a.wallet_id = v_envelope.wallet_id and a.balance_class = i.balance_class
      and a.currency = i.currency
    order by a.id
  loop
    insert into account (id, project_id, kind, envelope_id, balance_class, currency, gate)
      values (uuidv7(), p_project, 'pocket', p_envelope, item.balance_class, item.currency, v_envelope.gate)
      on conflict do nothing;
    select a.id into v_pocket from account a where a.kind = 'pocket' and a.envelope_id = p_envelope
      and a.balance_class = item.balance_class and a.currency = item.currency for no key update;
    perform post_transfer(item.id, p_project, 'top_up', item.wallet_account, v_pocket, item.amount,
      jsonb_build_object('envelope_id', p_envelope, 'run_id', v_envelope.run_id));
  end loop;
end
$$;

-- Opens an envelope and funds it from the project's wallet, or does nothing and says what was short.
create function open_envelope(p_project uuid, p_envelope uuid, p_run uuid, p_kind text, p_items jsonb)
returns table (reason text, balance_class text, currency text, asked bigint, free bigint)
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_wallet uuid;
begin
  select id into v_wallet from wallet where project_id = p_project;
  if not found then
    return query select 'no_wallet', null::text, null::text, null::bigint, null::bigint; return;
  end if;
  insert into envelope (id, project_id, wallet_id, run_id, kind) values (p_envelope, p_project, v_wallet, p_run, p_kind);
  return query select * from fund_envelope(p_project, p_envelope, p_items, true);
end
$$;

-- Moves more money into an open or frozen envelope. Never needs budget, never opens the gate by itself.
create function top_up_envelope(p_project uuid, p_envelope uuid, p_items jsonb)
returns table (reason text, balance_class text, currency text, asked bigint, free bigint)
language sql security definer set search_path = public, pg_temp as $$
  select * from fund_envelope(p_project, p_envelope, p_items, false)
$$;

-- Opens, freezes or begins to close an envelope: from this commit no request begins in one that is not open. Rare, so it
-- may notify: every process with a request in flight hears of it. Returns the gate that is in force afterwards.
create function set_gate(p_project uuid, p_envelope uuid, p_gate text, p_reason text) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_gate text;
begin
  if p_gate not in ('open', 'frozen', 'closing') then
    raise exception 'the gate % is not set by hand', p_gate using errcode = 'check_violation';
  end if;
  select gate into v_gate from envelope where id = p_envelope and project_id = p_project for no key update;
  if not found then return 'unknown'; end if;
  if v_gate in ('closing', 'closed') or v_gate = p_gate then return v_gate; end if;
  update envelope set gate = p_gate, gate_reason = p_reason where id = p_envelope;
  perform from account where kind = 'pocket' and envelope_id = p_envelope order by id for no key update;
  update account set gate = p_gate where kind = 'pocket' and envelope_id = p_envelope;
  perform pg_notify('purser_gate', p_envelope::text);
  return p_gate;
end
$$;

-- Sends the remainder home and closes, if no hold is open. Verdicts: closed | open_holds | unknown.
create function close_envelope(p_project uuid, p_envelope uuid, p_reason text) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  item record;
  v_envelope envelope;
begin
  perform from account a join envelope e on e.wallet_id = a.wallet_id and e.id = p_envelope and e.project_id = p_project
    where a.kind = 'wallet' order by a.id for no key update of a;
  select * into v_envelope from envelope where id = p_envelope and project_id = p_project for no key update;
  if not found then return 'unknown'; end if;
  if v_envelope.gate = 'closed' then return 'closed'; end if;
  perform from account where kind = 'pocket' and envelope_id = p_envelope order by id for no key update;
  if exists (select from account where kind = 'pocket' and envelope_id = p_envelope and pending_debit > 0) then
    return 'open_holds';
  end if;
  if exists (select from envelope where parent_id = p_envelope and gate <> 'closed') then return 'open_children'; end if;
  for item in
    select p.id as pocket, w.id as home, p.posted_credit - p.posted_debit as remainder
    from account p join account w on w.kind = 'wallet' and w.wallet_id = v_envelope.wallet_id
      and w.balance_class = p.balance_class and w.currency = p.currency
    where p.kind = 'pocket' and p.envelope_id = p_envelope order by w.id
  loop
    if item.remainder > 0 then
      perform post_transfer(uuidv7(), p_project, 'return', item.pocket, item.home, item.remainder,
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

grant select on envelope, account, transfer, refusal to purser_app;
grant select, insert on wallet to purser_app;
grant execute on function deposit, open_envelope, top_up_envelope, set_gate, close_envelope, project_debt to purser_app;
revoke execute on function deposit, open_envelope, top_up_envelope, set_gate, close_envelope, fund_envelope,
  post_transfer, ensure_counterparties, counterparty, project_debt, refuse_change from public;
