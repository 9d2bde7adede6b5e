-- The ledger grows: lots, quotes, child and standing envelopes, limits with their leases, and a closed list of what may
-- move where. The functions that move money over them follow in the next migrations.

-- Whom an envelope's calls count for, widest first: organisation, project, API key, run, and the runs above it. A limit
-- on any of them binds.
alter table envelope
  add column api_key_id uuid,
  add column subjects uuid[] not null default '{}';

update envelope e set api_key_id = r.api_key_id, subjects = array[p.organisation_id, p.id, r.api_key_id, r.id]
from run r join project p on p.id = r.project_id where r.envelope_id = e.id;

create index envelope_by_parent on envelope (parent_id) where parent_id is not null and gate <> 'closed';
create unique index envelope_standing on envelope (api_key_id) where kind = 'standing' and gate <> 'closed';

-- `cap`: most that a child's pocket may ever be given by its parent. `moved_at`: the clock at its last movement.
alter table account
  add column cap bigint check (cap >= 0),
  add column moved_at timestamptz not null default clock_timestamp(),
  drop constraint account_kind_check,
  add constraint account_kind_check check (
    kind in ('wallet', 'pocket', 'outside', 'provider_cost', 'revenue', 'exchange', 'overage', 'breakage'));

-- Credit comes in lots. `free` is what of it lies in the wallet; the rest is in envelopes, spent, or expired. A lot's
-- movements carry its id, so that folding the journal gives `free`; `opening` is what it had before lots existed.
create table lot (
  id uuid primary key,
  project_id uuid not null,
  account_id uuid not null,
  source text not null,
  priority integer not null default 100,
  expires_at timestamptz,
  opening bigint not null default 0 check (opening >= 0),
  free bigint not null check (free >= 0),
  created_at timestamptz not null default clock_timestamp()
);

create index lot_of_account on lot (account_id, priority, expires_at, id);
create index lot_to_expire on lot (expires_at) where expires_at is not null and free > 0;

insert into lot (id, project_id, account_id, source, opening, free)
select uuidv7(), project_id, id, 'opening', posted_credit - posted_debit, posted_credit - posted_debit
from account where kind = 'wallet' and balance_class = 'credit';

-- An exchange rate as it was agreed: `sell` nano of one currency buy `buy` nano of the other. Rows never change; an
-- envelope's funding names the quote it was made with, and what comes back uses the same.
create table quote (
  id uuid primary key,
  organisation_id uuid not null,
  sell_currency text not null check (sell_currency ~ '^[A-Z]{3}$'),
  buy_currency text not null check (buy_currency ~ '^[A-Z]{3}$'),
  sell bigint not null check (sell > 0),
  buy bigint not null check (buy > 0),
  source text not null,
  effective_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz,
  check (sell_currency <> buy_currency)
);

create index quote_by_pair on quote (organisation_id, sell_currency, buy_currency, effective_at desc);
create trigger quote_is_append_only before update or delete on quote for each row execute function refuse_change();
create trigger quote_keeps_its_rows before truncate on quote for each statement execute function refuse_change();

-- A cap on money (nano), tokens or calls, for life or by window. `step`: the first part of the call's path.
create table usage_limit (
  id uuid primary key,
  organisation_id uuid not null,
  project_id uuid,
  scope text not null check (scope in ('organisation', 'project', 'key', 'run', 'step')),
  subject_id uuid not null,
  step text,
  measure text not null check (measure in ('money', 'tokens', 'calls')),
  currency text check (currency ~ '^[A-Z]{3}$'),
  period text not null check (period in ('life', 'minute', 'hour', 'day', 'week', 'month')),
  time_zone text not null default 'UTC',
  cap bigint not null check (cap >= 0),
  created_at timestamptz not null default clock_timestamp(),
  retired_at timestamptz,
  check ((scope = 'step') = (step is not null)),
  check ((measure = 'money') = (currency is not null)),
  check ((scope = 'organisation') = (project_id is null))
);

create index usage_limit_by_subject on usage_limit (subject_id) where retired_at is null;

-- One window of a limit. `used` is what leases that were folded away had used.
create table limit_window (
  limit_id uuid not null,
  starts_at timestamptz not null,
  ends_at timestamptz,
  used bigint not null default 0 check (used >= 0),
  primary key (limit_id, starts_at)
);

-- A part of a window's cap, lent to one envelope, so that a call locks its own envelope only.
create table lease (
  id uuid primary key default uuidv7(),
  project_id uuid not null,
  limit_id uuid not null,
  starts_at timestamptz not null,
  envelope_id uuid not null,
  leased bigint not null default 0,
  used bigint not null default 0 check (used >= 0),
  held bigint not null default 0 check (held >= 0),
  check (used + held <= leased),
  unique (envelope_id, limit_id, starts_at)
) with (fillfactor = 30);

create index lease_of_window on lease (limit_id, starts_at);

-- The start of the window that an instant lies in. A life has one window, from the epoch on.
create function window_start(p_period text, p_time_zone text, p_at timestamptz) returns timestamptz
language sql stable as $$
  select case when p_period = 'life' then timestamptz 'epoch' else date_trunc(p_period, p_at, p_time_zone) end
$$;

-- The end of a window, null for a life: where the next one begins. Minutes and hours are lengths of time (an hour that
-- comes twice is two windows); days, weeks and months are dates (one may last 23 or 25 hours).
create function window_end(p_period text, p_time_zone text, p_start timestamptz) returns timestamptz
language sql stable as $$
  select case
    when p_period in ('minute', 'hour') then p_start + ('1 ' || p_period)::interval
    when p_period <> 'life' then
      (date_trunc(p_period, p_start at time zone p_time_zone) + ('1 ' || p_period)::interval) at time zone p_time_zone
  end
$$;

-- What may move where. Every row of the journal is checked against it, and against its accounts' tenant and currency.
create table allowed_movement (
  debit_kind text not null,
  credit_kind text not null,
  code text not null,
  primary key (code, debit_kind, credit_kind)
);

insert into allowed_movement (debit_kind, credit_kind, code) values
  ('outside', 'wallet', 'deposit'),
  ('wallet', 'outside', 'reversal'),
  ('breakage', 'outside', 'reversal'),
  ('overage', 'outside', 'reversal'),
  ('wallet', 'outside', 'refund'),
  ('wallet', 'breakage', 'breakage'),
  ('wallet', 'pocket', 'top_up'),
  ('wallet', 'exchange', 'top_up'),
  ('exchange', 'pocket', 'top_up'),
  ('pocket', 'wallet', 'return'),
  ('pocket', 'exchange', 'return'),
  ('exchange', 'wallet', 'return'),
  ('pocket', 'pocket', 'carve'),
  ('pocket', 'pocket', 'return'),
  ('pocket', 'provider_cost', 'hold'),
  ('pocket', 'provider_cost', 'capture'),
  ('pocket', 'provider_cost', 'void'),
  ('pocket', 'provider_cost', 'expire'),
  ('pocket', 'provider_cost', 'overage'),
  ('overage', 'provider_cost', 'overage'),
  ('wallet', 'overage', 'debt_payment'),
  ('pocket', 'provider_cost', 'correction'),
  ('wallet', 'provider_cost', 'correction'),
  ('overage', 'provider_cost', 'correction'),
  ('provider_cost', 'pocket', 'correction'),
  ('provider_cost', 'wallet', 'correction'),
  ('provider_cost', 'overage', 'correction');

create trigger allowed_movement_is_closed before insert or update or delete on allowed_movement
  for each row execute function refuse_change();

-- Rows are looked up by key, one by one, whatever the planner believes of the tables' sizes.
create function check_movements() returns trigger language plpgsql set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  v_wrong text;
begin
  select t.id || ': ' || t.code || ' from ' || coalesce(d.kind, 'an account of another project or currency') || ' to '
      || coalesce(c.kind, 'an account of another project or currency')
    into v_wrong
  from (select distinct on (debit_account, credit_account, code, project_id, currency) * from posted) t
  left join lateral (select d.kind from account d
    where d.id = t.debit_account and d.project_id = t.project_id and d.currency = t.currency limit 1) d on true
  left join lateral (select c.kind from account c
    where c.id = t.credit_account and c.project_id = t.project_id and c.currency = t.currency limit 1) c on true
  left join lateral (select k.code from allowed_movement k
    where k.code = t.code and k.debit_kind = d.kind and k.credit_kind = c.kind limit 1) k on true
  where k.code is null limit 1;
  if found then raise exception 'no such movement is allowed: %', v_wrong using errcode = 'check_violation'; end if;
  return null;
end
$$;

create trigger transfer_is_allowed after insert on transfer referencing new table as posted
  for each statement execute function check_movements();

-- `reverses`: the deposit that a reversal takes back.
alter table transfer
  add column lot_id uuid,
  add column quote_id uuid,
  add column reverses uuid,
  drop constraint transfer_code_check;

drop index transfer_by_run;
create index transfer_by_envelope on transfer (envelope_id, seq) where envelope_id is not null;
create unique index transfer_in_order on transfer (xid, seq);
create unique index transfer_reversal on transfer (reverses, debit_account) where reverses is not null;
create unique index transfer_refund on transfer (project_id, reference) where code = 'refund';
create index transfer_of_lot on transfer (lot_id, seq) where lot_id is not null;
create index transfer_from_wallet on transfer (debit_account, seq)
  where code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve');
create index transfer_to_wallet on transfer (credit_account, seq)
  where code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve');

-- What bound, and what was free of it; a limit names its cap, what was spent and held of it, and when it resets.
alter table refusal
  add column limit_id uuid,
  add column measure text not null default 'money' check (measure in ('money', 'tokens', 'calls')),
  add column cap bigint,
  add column spent bigint,
  add column held bigint,
  add column resets_at timestamptz,
  drop constraint refusal_bound_check,
  add constraint refusal_bound_check check (bound in ('pocket', 'parent', 'wallet', 'limit')),
  add constraint refusal_names_its_limit check ((bound = 'limit') = (limit_id is not null));

-- An attempt is found by its call and number; a call has at most one that is open. `leases` and `tokens` are what it
-- holds of limits. Calls of a standing envelope belong to no run.
alter table attempt
  add column leases uuid[] not null default '{}',
  add column tokens bigint not null default 0 check (tokens >= 0),
  alter column run_id drop not null,
  drop constraint attempt_hold_id_key;
alter table call alter column run_id drop not null;
-- Room for the answer's update beside the row, so that no index has to follow it.
alter table call set (fillfactor = 70);
-- Nothing looks for the payloads of a run but by its calls.
drop index payload_by_run;
drop index attempt_open;
drop index attempt_by_run;
create unique index attempt_open on attempt (call_id) where state = 'sent';

grant select on lot, limit_window, lease, usage_limit, allowed_movement to purser_app;
grant select, insert on quote to purser_app;

-- Posts one movement. The caller holds the locks of both guarded sides, in the global order, and has looked whether the
-- money is there; the table's CHECK stands behind it. `p_tags` may name envelope_id, run_id, call_id, attempt, certainty,
-- use, reference, lot_id, quote_id and reverses.
create or replace function post_transfer(
  p_id uuid, p_project uuid, p_code text, p_debit uuid, p_credit uuid, p_amount bigint,
  p_tags jsonb default '{}'
) returns void
language plpgsql as $$
declare
  v_debit account;
  v_credit account;
  v_now timestamptz := clock_timestamp();
begin
  if exists (
    select from account where id in (p_debit, p_credit) and kind in ('wallet', 'pocket')
      and moved_at > v_now + clock_tolerance()
  ) then
    raise exception 'the clock of the database stands behind the last movement of an account of movement %', p_id
      using errcode = 'PU001', hint = 'Set the clock right, or wait until it has caught up.';
  end if;
  update account set posted_debit = posted_debit + p_amount, version = version + 1, moved_at = v_now
    where id = p_debit and project_id = p_project and kind in ('wallet', 'pocket') returning * into v_debit;
  update account set posted_credit = posted_credit + p_amount, version = version + 1, moved_at = v_now
    where id = p_credit and project_id = p_project and kind in ('wallet', 'pocket') returning * into v_credit;
  insert into transfer (id, recorded_at, project_id, code, debit_account, credit_account, currency, amount, envelope_id,
    run_id, call_id, attempt, certainty, use, reference, lot_id, quote_id, reverses, debit_version, debit_balance,
    debit_held, credit_version, credit_balance, credit_held)
  select p_id, v_now, p_project, p_code, d.id, c.id, d.currency, p_amount, (p_tags->>'envelope_id')::uuid,
    (p_tags->>'run_id')::uuid, (p_tags->>'call_id')::uuid, (p_tags->>'attempt')::integer, p_tags->>'certainty',
    p_tags->>'use', p_tags->>'reference', (p_tags->>'lot_id')::uuid, (p_tags->>'quote_id')::uuid,
    (p_tags->>'reverses')::uuid, v_debit.version, v_debit.posted_credit - v_debit.posted_debit, v_debit.pending_debit,
    v_credit.version, v_credit.posted_credit - v_credit.posted_debit, v_credit.pending_debit
  from account d, account c
  where d.id = p_debit and c.id = p_credit and d.project_id = p_project and c.project_id = p_project
    and d.currency = c.currency;
  if not found then
    raise exception 'movement % names an account of another project or currency', p_id using errcode = 'check_violation';
  end if;
end
$$;

-- How far the database's clock may stand behind an account's last movement before nothing moves any more.
create function clock_tolerance() returns interval language sql immutable as $$ select interval '1 second' $$;
