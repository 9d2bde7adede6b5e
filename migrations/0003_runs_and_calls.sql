-- Runs, their calls, and the two functions every attempt goes through: reserve (plan + hold + sent) and settle
-- (answer + usage + capture), one commit each.

create table run (
  id uuid primary key,
  project_id uuid not null references project,
  api_key_id uuid not null,
  envelope_id uuid not null,
  agent text not null,
  model text not null,
  input jsonb not null,
  options jsonb not null,
  state text not null default 'queued'
    check (state in ('queued', 'running', 'paused', 'completed', 'partial', 'cancelled', 'failed')),
  -- Why it is paused or how it ends: a word of a closed set, a sentence for people, and the limit when money did it.
  reason text,
  detail text,
  stop jsonb,
  output jsonb,
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  -- From here on the run is ending, for the reason given above: whoever ends it first stands.
  ending_at timestamptz,
  finished_at timestamptz,
  check ((state in ('completed', 'partial', 'cancelled', 'failed')) = (finished_at is not null))
);

create index run_by_project on run (project_id, id desc);

-- What a person asked of a run, in the transaction that moved the money for it. A dispatcher tells the workflow, and
-- repeats until it is delivered.
create table command (
  id uuid primary key,
  project_id uuid not null,
  run_id uuid not null references run,
  kind text not null check (kind in ('start', 'top_up', 'pause', 'resume', 'cancel', 'answer')),
  body jsonb not null,
  created_at timestamptz not null default clock_timestamp(),
  delivered_at timestamptz
);

create index command_to_deliver on command (created_at) where delivered_at is null;

-- Readers order by (xid, seq) and read only rows whose xid is below the oldest one still running.
create table event (
  seq bigint not null generated always as identity,
  xid xid8 not null default pg_current_xact_id(),
  project_id uuid not null,
  run_id uuid not null,
  kind text not null,
  data jsonb not null,
  recorded_at timestamptz not null default clock_timestamp(),
  primary key (run_id, xid, seq)
);

create table payload (
  id uuid primary key,
  project_id uuid not null,
  run_id uuid,
  kind text not null check (kind in ('request', 'answer', 'tool', 'output')),
  body jsonb not null,
  created_at timestamptz not null default clock_timestamp()
);

create index payload_by_run on payload (run_id) where run_id is not null;

create table call (
  id uuid primary key,
  project_id uuid not null,
  run_id uuid not null,
  envelope_id uuid not null,
  api_key_id uuid not null,
  path text not null,
  digest bytea not null,
  model text not null,
  catalog_version integer not null,
  request_id uuid not null,
  state text not null default 'open' check (state in ('open', 'answered')),
  answer_id uuid,
  answer_attempt integer,
  -- Why the last pass over the routes ended without an answer.
  stop_reason text,
  stop_detail text,
  created_at timestamptz not null default clock_timestamp(),
  answered_at timestamptz,
  check ((state = 'answered') = (answer_id is not null and answer_attempt is not null))
);

create index call_by_run on call (run_id, created_at);

create table attempt (
  call_id uuid not null,
  number integer not null,
  project_id uuid not null,
  run_id uuid not null,
  envelope_id uuid not null,
  account_id uuid not null,
  hold_id uuid not null unique,
  instance_id uuid not null,
  -- The one executor that may send it: a process can run several executors of one call.
  owner uuid not null,
  held bigint not null,
  plan jsonb not null,
  state text not null default 'sent' check (state in ('sent', 'resolved')),
  outcome text,
  detail jsonb,
  usage jsonb,
  sent_at timestamptz not null default clock_timestamp(),
  resolved_at timestamptz,
  primary key (call_id, number),
  check ((state = 'resolved') = (outcome is not null and resolved_at is not null))
);

create index attempt_open on attempt (envelope_id) where state = 'sent';
create index attempt_by_run on attempt (run_id);

-- Holds money for attempts of one pocket, first in first out, in one commit.
-- p_items: [{hold_id, call_id, attempt, run_id, envelope_id, amount, owner, plan}].
-- Verdicts: granted | taken (another executor's) | busy (fits once open holds come back; writes nothing) | exhausted
-- (stored; closes this attempt for ever) | frozen | closing | closed | answered | owner_dead | unknown_pocket.
create function reserve(p_project uuid, p_account uuid, p_instance uuid, p_items jsonb)
returns table (hold_id uuid, verdict text, replayed boolean, free bigint)
language plpgsql security definer set search_path = public, pg_temp as $$
#variable_conflict use_column
declare
  item record;
  v_account account;
  v_attempt attempt;
  v_verdict text;
  v_replayed boolean;
  v_balance bigint;
  v_held bigint;
  v_version bigint;
  v_cost uuid;
  v_waiting boolean := false;
  v_alive boolean;
begin
  select * into v_account from account where id = p_account and project_id = p_project and kind = 'pocket'
    for no key update;
  v_alive := exists (select from instance where id = p_instance and lease_until > clock_timestamp());
  v_balance := v_account.posted_credit - v_account.posted_debit;
  v_held := v_account.pending_debit;
  v_version := v_account.version;
  v_cost := counterparty(p_project, 'provider_cost', v_account.currency);
  for item in
    select i.* from jsonb_to_recordset(p_items) as i(hold_id uuid, call_id uuid, attempt integer, run_id uuid,
      envelope_id uuid, amount bigint, owner uuid, plan jsonb)
  loop
    v_replayed := false;
    select * into v_attempt from attempt a where a.hold_id = item.hold_id;
    if found then
      v_replayed := true;
      v_verdict := case when v_attempt.owner = item.owner and v_attempt.state = 'sent' then 'granted' else 'taken' end;
    elsif exists (select from refusal r where r.hold_id = item.hold_id) then
      v_replayed := true;
      v_verdict := 'exhausted';
    elsif v_account.id is null or item.envelope_id <> v_account.envelope_id then
      v_verdict := 'unknown_pocket';
    elsif item.amount < 0 then
      v_verdict := 'invalid_amount';
    elsif not v_alive then
      v_verdict := 'owner_dead';
    elsif v_account.gate <> 'open' then
      v_verdict := v_account.gate;
    elsif not exists (
      select from call c where c.id = item.call_id and c.project_id = p_project and c.envelope_id = item.envelope_id
    ) then
      v_verdict := 'unknown_call';
    elsif exists (select from call c where c.id = item.call_id and c.state = 'answered') then
      v_verdict := 'answered';
    elsif exists (select from attempt a where a.call_id = item.call_id and a.state = 'sent') then
      v_verdict := 'taken';
    elsif item.amount > v_balance then
      v_verdict := 'exhausted';
      insert into refusal (hold_id, project_id, run_id, envelope_id, account_id, call_id, attempt, bound, asked, free, plan)
        values (item.hold_id, p_project, item.run_id, item.envelope_id, p_account, item.call_id, item.attempt, 'pocket',
          item.amount, v_balance - v_held, item.plan);
      insert into event (project_id, run_id, kind, data) values (p_project, item.run_id, 'attempt.refused',
        jsonb_build_object('callId', item.call_id, 'attempt', item.attempt, 'route', item.plan->>'route',
          'balanceClass', v_account.balance_class, 'currency', v_account.currency, 'askedNano', item.amount::text, 'freeNano',
          (v_balance - v_held)::text));
    elsif v_waiting or item.amount > v_balance - v_held then
      v_waiting := true;
      v_verdict := 'busy';
    else
      v_verdict := 'granted';
      v_held := v_held + item.amount;
      v_version := v_version + 1;
      insert into transfer (id, project_id, code, debit_account, credit_account, currency, amount, envelope_id, run_id,
          call_id, attempt, debit_version, debit_balance, debit_held)
        values (item.hold_id, p_project, 'hold', p_account, v_cost, v_account.currency, item.amount, item.envelope_id,
          item.run_id, item.call_id, item.attempt, v_version, v_balance, v_held);
      insert into attempt (call_id, number, project_id, run_id, envelope_id, account_id, hold_id, instance_id, owner,
          held, plan)
        values (item.call_id, item.attempt, p_project, item.run_id, item.envelope_id, p_account, item.hold_id,
          p_instance, item.owner, item.amount, item.plan);
    end if;
    return query select item.hold_id, v_verdict, v_replayed, v_balance - v_held;
  end loop;
  if v_version > v_account.version then
    update account set pending_debit = v_held, version = v_version where id = p_account;
  end if;
end
$$;

-- Stores an answer, if there is one, and says whether it is the call's: a call has at most one.
create function store_answer(p_hold transfer, p_answer_id uuid, p_answer jsonb) returns boolean
language plpgsql as $$
begin
  if p_answer_id is null then return false; end if;
  insert into payload (id, project_id, run_id, kind, body)
    values (p_answer_id, p_hold.project_id, p_hold.run_id, 'answer', p_answer) on conflict do nothing;
  update call set state = 'answered', answer_id = p_answer_id, answer_attempt = p_hold.attempt,
      answered_at = clock_timestamp(), stop_reason = null, stop_detail = null
    where id = p_hold.call_id and state = 'open';
  return found;
end
$$;

-- Resolves attempts of one pocket in one commit: posts what was used, releases the rest of the hold, stores the answer.
-- p_items: [{hold_id, resolution_id, overage_id, debt_id, amount, certainty, outcome, detail, usage, answer_id, answer}];
-- amount null = nothing was used (void). With p_take_over only attempts whose owner's lease is dead are resolved.
-- Verdicts: settled | replayed (the same resolution again) | already_resolved | owner_alive | mismatch | unknown_hold.
create function settle(p_project uuid, p_account uuid, p_items jsonb, p_take_over boolean default false)
returns table (hold_id uuid, verdict text)
language plpgsql security definer set search_path = public, pg_temp as $$
#variable_conflict use_column
declare
  item record;
  v_account account;
  v_attempt attempt;
  v_hold transfer;
  v_known transfer;
  v_cost uuid;
  v_use text;
  v_from_hold bigint;
  v_from_pocket bigint;
  v_answers boolean;
begin
  select * into v_account from account where id = p_account and project_id = p_project and kind = 'pocket'
    for no key update;
  v_cost := counterparty(p_project, 'provider_cost', v_account.currency);
  for item in
    select i.* from jsonb_to_recordset(p_items) as i(hold_id uuid, resolution_id uuid, overage_id uuid, debt_id uuid,
      amount bigint, certainty text, outcome text, detail jsonb, usage jsonb, answer_id uuid, answer jsonb)
  loop
    select * into v_hold from transfer t where t.id = item.hold_id and t.project_id = p_project and t.code = 'hold'
      and t.debit_account = p_account;
    if not found then return query select item.hold_id, 'unknown_hold'; continue; end if;
    select * into v_known from transfer t where t.pending_id = item.hold_id;
    if found then
      return query select item.hold_id, case
        when v_known.id <> item.resolution_id then 'already_resolved'
        when v_known.amount <> least(coalesce(item.amount, 0), v_hold.amount) then 'mismatch'
        else 'replayed' end;
      continue;
    end if;
    select * into v_attempt from attempt a where a.hold_id = item.hold_id;
    if p_take_over and exists (
      select from instance i where i.id = v_attempt.instance_id and i.lease_until > clock_timestamp()
    ) then
      return query select item.hold_id, 'owner_alive'; continue;
    end if;
    v_answers := store_answer(v_hold, item.answer_id, item.answer);
    v_use := case when v_answers then 'useful' else 'wasted' end;
    v_from_hold := least(coalesce(item.amount, 0), v_hold.amount);
    update account set posted_debit = posted_debit + v_from_hold, pending_debit = pending_debit - v_hold.amount,
        version = version + 1 where id = p_account returning * into v_account;
    insert into transfer (id, project_id, code, debit_account, credit_account, currency, amount, released, pending_id,
        envelope_id, run_id, call_id, attempt, certainty, use, debit_version, debit_balance, debit_held)
      values (item.resolution_id, p_project, case when item.amount is null then 'void' else 'capture' end, p_account,
        v_cost, v_hold.currency, v_from_hold, v_hold.amount, v_hold.id, v_hold.envelope_id, v_hold.run_id, v_hold.call_id,
        v_hold.attempt, case when item.amount is not null then item.certainty end,
        case when item.amount is not null then v_use end, v_account.version,
        v_account.posted_credit - v_account.posted_debit, v_account.pending_debit);
    if coalesce(item.amount, 0) > v_hold.amount then
      v_from_pocket := least(item.amount - v_hold.amount,
        v_account.posted_credit - v_account.posted_debit - v_account.pending_debit);
      perform book_overage(p_project, p_account, item.amount - v_hold.amount, v_from_pocket, item.overage_id, item.debt_id,
        jsonb_build_object('envelope_id', v_hold.envelope_id, 'run_id', v_hold.run_id, 'call_id', v_hold.call_id,
          'attempt', v_hold.attempt, 'certainty', item.certainty, 'use', v_use));
      select * into v_account from account where id = p_account;
    end if;
    update attempt a set state = 'resolved', outcome = item.outcome, detail = item.detail, usage = item.usage,
      resolved_at = clock_timestamp() where a.hold_id = item.hold_id;
    insert into event (project_id, run_id, kind, data) values (p_project, v_hold.run_id, 'attempt.settled',
      jsonb_build_object('callId', v_hold.call_id, 'attempt', v_hold.attempt, 'route', v_attempt.plan->>'route',
        'balanceClass', v_account.balance_class, 'currency', v_hold.currency, 'outcome', item.outcome,
        'heldNano', v_hold.amount::text, 'chargedNano', coalesce(item.amount, 0)::text, 'certainty', item.certainty));
    return query select item.hold_id, 'settled';
  end loop;
end
$$;

-- What an attempt cost beyond its hold: from the pocket's free money first, the rest is the project's debt.
create function book_overage(p_project uuid, p_pocket uuid, p_excess bigint, p_from_pocket bigint, p_overage_id uuid,
  p_debt_id uuid, p_tags jsonb) returns void
language plpgsql as $$
declare
  v_currency text;
begin
  select currency into v_currency from account where id = p_pocket;
  if p_from_pocket > 0 then
    perform post_transfer(p_overage_id, p_project, 'overage', p_pocket, counterparty(p_project, 'provider_cost', v_currency),
      p_from_pocket, p_tags);
  end if;
  if p_excess > p_from_pocket then
    perform post_transfer(p_debt_id, p_project, 'overage', counterparty(p_project, 'overage', v_currency),
      counterparty(p_project, 'provider_cost', v_currency), p_excess - p_from_pocket, p_tags);
  end if;
end
$$;

-- Truth that comes after an attempt was resolved by estimate: stores the answer if the call has none, and books truth
-- minus what was charged. The money goes back to the pocket, or to the wallet once the envelope is closed.
-- p_item: {hold_id, correction_id, debt_id, amount, certainty, usage, detail, answer_id, answer}.
-- Verdicts: corrected | replayed | unresolved | unknown_hold.
create function correct(p_project uuid, p_account uuid, p_item jsonb) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
#variable_conflict use_column
declare
  item record;
  v_pocket account;
  v_home account;
  v_hold transfer;
  v_cost uuid;
  v_charged bigint;
  v_delta bigint;
  v_taken bigint;
  v_tags jsonb;
  v_answers boolean;
begin
  select i.* into item from jsonb_to_record(p_item) as i(hold_id uuid, correction_id uuid, debt_id uuid, amount bigint,
    certainty text, usage jsonb, detail jsonb, answer_id uuid, answer jsonb);
  select w.* into v_home from account p join envelope e on e.id = p.envelope_id
    join account w on w.kind = 'wallet' and w.wallet_id = e.wallet_id and w.balance_class = p.balance_class
      and w.currency = p.currency
    where p.id = p_account and p.project_id = p_project for no key update of w;
  select * into v_pocket from account where id = p_account and project_id = p_project and kind = 'pocket'
    for no key update;
  select * into v_hold from transfer t where t.id = item.hold_id and t.project_id = p_project and t.code = 'hold'
    and t.debit_account = p_account;
  if not found then return 'unknown_hold'; end if;
  if not exists (select from transfer t where t.pending_id = item.hold_id) then return 'unresolved'; end if;
  if exists (select from transfer t where t.id in (item.correction_id, item.debt_id)) then return 'replayed'; end if;
  v_cost := counterparty(p_project, 'provider_cost', v_pocket.currency);
  v_answers := store_answer(v_hold, item.answer_id, item.answer);
  select coalesce(sum(case when t.credit_account = v_cost then t.amount else -t.amount end), 0) into v_charged
    from transfer t where t.run_id = v_hold.run_id and t.call_id = v_hold.call_id and t.attempt = v_hold.attempt
      and t.code in ('capture', 'overage', 'correction');
  v_delta := item.amount - v_charged;
  v_tags := jsonb_build_object('envelope_id', v_hold.envelope_id, 'run_id', v_hold.run_id, 'call_id', v_hold.call_id,
    'attempt', v_hold.attempt, 'certainty', item.certainty, 'use', case when v_answers then 'useful' else 'wasted' end);
  if v_pocket.gate <> 'closed' then v_home := v_pocket; end if;
  if v_delta <= 0 then
    perform post_transfer(item.correction_id, p_project, 'correction', v_cost, v_home.id, -v_delta, v_tags);
  else
    v_taken := least(v_delta, v_home.posted_credit - v_home.posted_debit - v_home.pending_debit);
    if v_taken > 0 then
      perform post_transfer(item.correction_id, p_project, 'correction', v_home.id, v_cost, v_taken, v_tags);
    end if;
    if v_delta > v_taken then
      perform post_transfer(item.debt_id, p_project, 'correction', counterparty(p_project, 'overage', v_pocket.currency),
        v_cost, v_delta - v_taken, v_tags);
    end if;
  end if;
  update attempt a set usage = item.usage, detail = coalesce(a.detail, '{}') || coalesce(item.detail, '{}')
    where a.hold_id = item.hold_id;
  insert into event (project_id, run_id, kind, data) values (p_project, v_hold.run_id, 'attempt.corrected',
    jsonb_build_object('callId', v_hold.call_id, 'attempt', v_hold.attempt, 'currency', v_hold.currency,
      'deltaNano', v_delta::text, 'answered', v_answers));
  return 'corrected';
end
$$;

grant select on call, attempt to purser_app;
grant insert, update (stop_reason, stop_detail) on call to purser_app;
grant select, insert on event, payload to purser_app;
grant select, insert on run, command to purser_app;
grant update (state, reason, detail, stop, output, started_at, ending_at, finished_at) on run to purser_app;
grant update (delivered_at) on command to purser_app;
grant execute on function reserve, settle, correct to purser_app;
revoke execute on function reserve, settle, correct, book_overage, store_answer from public;
