-- Looking back: what an account held at an instant, found by bisecting the indexes that lead to its movements.

create index transfer_carved_from on transfer (debit_account, seq) where code = 'carve';
create index transfer_carved_to on transfer (credit_account, seq) where code = 'carve';
-- A statement names the envelopes that were open in its month: those that never closed, or not before it began.
create index envelope_by_closing on envelope (project_id, closed_at);

-- How far the order in which movements are numbered may stray from the order of their clocks, and how long something
-- may still appear behind an instant: the longest write transaction, and how far the clock may step back.
create function instant_slack() returns interval language sql immutable as $$
  select interval '5 seconds' + clock_tolerance()
$$;

-- A number that no movement of these streams recorded at `p_at` or before exceeds, and that is not above the first one
-- recorded after `p_at`, if they are recorded in order. The caller allows for disorder: by `instant_slack` on `p_at`.
-- Bisects, so that a long history costs no more than a short one.
create function movement_bound(p_account uuid, p_envelope uuid, p_at timestamptz) returns bigint
language plpgsql stable set search_path = public, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan
as $$
declare
  v_low bigint := 0;
  v_high bigint;
  v_middle bigint;
  v_seq bigint;
  v_recorded_at timestamptz;
begin
  select max(x.seq) into v_high from (
    (select t.seq from transfer t where t.debit_account = p_account
      and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve') order by t.seq desc limit 1)
    union all
    (select t.seq from transfer t where t.credit_account = p_account
      and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve') order by t.seq desc limit 1)
    union all
    (select t.seq from transfer t where t.debit_account = p_account and t.code = 'carve' order by t.seq desc limit 1)
    union all
    (select t.seq from transfer t where t.credit_account = p_account and t.code = 'carve' order by t.seq desc limit 1)
    union all
    (select t.seq from transfer t where t.envelope_id = p_envelope order by t.seq desc limit 1)
  ) x;
  while v_low < v_high loop
    v_middle := v_low + (v_high - v_low) / 2;
    select x.seq, x.recorded_at into v_seq, v_recorded_at from (
      (select t.seq, t.recorded_at from transfer t where t.debit_account = p_account and t.seq > v_middle
        and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve') order by t.seq limit 1)
      union all
      (select t.seq, t.recorded_at from transfer t where t.credit_account = p_account and t.seq > v_middle
        and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve') order by t.seq limit 1)
      union all
      (select t.seq, t.recorded_at from transfer t where t.debit_account = p_account and t.seq > v_middle
        and t.code = 'carve' order by t.seq limit 1)
      union all
      (select t.seq, t.recorded_at from transfer t where t.credit_account = p_account and t.seq > v_middle
        and t.code = 'carve' order by t.seq limit 1)
      union all
      (select t.seq, t.recorded_at from transfer t where t.envelope_id = p_envelope and t.seq > v_middle
        order by t.seq limit 1)
    ) x order by x.seq limit 1;
    if v_recorded_at <= p_at then v_low := v_seq; else v_high := v_middle; end if;
  end loop;
  return coalesce(v_low, 0);
end
$$;

-- A guarded account right after its last movement at or before an instant; no row when it had none yet.
create function account_at(p_account uuid, p_at timestamptz)
returns table (version bigint, posted bigint, held bigint, seq bigint)
language plpgsql stable set search_path = public, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan
as $$
declare
  v_envelope uuid := (select a.envelope_id from account a where a.id = p_account);
  v_bound bigint := movement_bound(p_account, v_envelope, p_at + instant_slack());
begin
  return query
  select x.version, x.posted, x.held, x.seq from (
    (select t.debit_version as version, t.debit_balance as posted, t.debit_held as held, t.seq from transfer t
      where t.debit_account = p_account and t.seq <= v_bound and t.recorded_at <= p_at
        and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve') order by t.seq desc limit 1)
    union all
    (select t.credit_version, t.credit_balance, t.credit_held, t.seq from transfer t
      where t.credit_account = p_account and t.seq <= v_bound and t.recorded_at <= p_at
        and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve') order by t.seq desc limit 1)
    union all
    (select t.debit_version, t.debit_balance, t.debit_held, t.seq from transfer t
      where t.debit_account = p_account and t.seq <= v_bound and t.recorded_at <= p_at and t.code = 'carve'
      order by t.seq desc limit 1)
    union all
    (select t.credit_version, t.credit_balance, t.credit_held, t.seq from transfer t
      where t.credit_account = p_account and t.seq <= v_bound and t.recorded_at <= p_at and t.code = 'carve'
      order by t.seq desc limit 1)
    union all
    (select t.debit_version, t.debit_balance, t.debit_held, t.seq from transfer t
      where t.envelope_id = v_envelope and t.debit_account = p_account and t.seq <= v_bound and t.recorded_at <= p_at
        and t.code in ('hold', 'capture', 'void', 'expire', 'overage') order by t.seq desc limit 1)
  ) x order by x.seq desc limit 1;
end
$$;

grant execute on function instant_slack, movement_bound, account_at, clock_tolerance to purser_app;
revoke execute on function instant_slack, movement_bound, account_at from public;

-- Prices, catalogs and quotes are what money is computed with, so nobody inserts them directly: they come into force now or
-- later, by the database's clock, and never in the past.
revoke insert on price, catalog, quote from purser_app;

-- The newest of its model and currency from now on. Asked again with the same id it changes nothing.
create function add_price(p_price jsonb) returns void
language sql security definer set search_path = public, pg_temp as $$
  insert into price (id, provider, upstream_model, currency, input_nano_per_million, cached_input_nano_per_million,
    output_nano_per_million, per_call_nano)
  select p.id, p.provider, p.upstream_model, p.currency, p.input_nano_per_million, p.cached_input_nano_per_million,
    p.output_nano_per_million, p.per_call_nano
  from jsonb_populate_record(null::price, p_price) p on conflict (id) do nothing
$$;

create function add_catalog(p_digest bytea, p_document jsonb) returns integer
language sql security definer set search_path = public, pg_temp as $$
  insert into catalog (digest, document) values (p_digest, p_document) returning version
$$;

create function add_quote(p_quote jsonb) returns quote
language sql security definer set search_path = public, pg_temp as $$
  insert into quote (id, organisation_id, sell_currency, buy_currency, sell, buy, source, effective_at, expires_at)
  select q.id, q.organisation_id, q.sell_currency, q.buy_currency, q.sell, q.buy, q.source,
    greatest(q.effective_at, clock_timestamp()), q.expires_at
  from jsonb_populate_record(null::quote, p_quote) q returning *
$$;

grant execute on function add_price, add_catalog, add_quote to purser_app;
revoke execute on function add_price, add_catalog, add_quote from public;

-- What is no part of the ledger is not kept for ever. Each function deletes at most `p_most` rows that are older than
-- `p_age`, skips what others are deleting, and says how many it deleted. Nothing goes before it is a day old, whatever is
-- asked: an answer to an Idempotency-Key, and the row of a living process, are not the caller's to forget.
create function kept_at_least(p_age interval) returns interval language sql immutable as $$
  select greatest(p_age, interval '1 day')
$$;

create index refusal_by_age on refusal (recorded_at);
create index idempotency_by_age on idempotency (created_at);

-- Refused holds of runs that are over, and of calls that belong to no run. No ledger entry names one.
create function purge_refusals(p_age interval, p_most integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_rows integer;
begin
  delete from refusal where hold_id in (
    select f.hold_id from refusal f
    where f.recorded_at < clock_timestamp() - kept_at_least(p_age) and (f.run_id is null or exists (
      select from run r where r.id = f.run_id and r.finished_at < clock_timestamp() - kept_at_least(p_age)
    ))
    order by f.recorded_at limit p_most for update of f skip locked);
  get diagnostics v_rows = row_count;
  return v_rows;
end
$$;

-- Answers given to an Idempotency-Key: who repeats a request later than this has its effect again.
create function purge_idempotency(p_age interval, p_most integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_rows integer;
begin
  delete from idempotency where (scope, key) in (
    select i.scope, i.key from idempotency i where i.created_at < clock_timestamp() - kept_at_least(p_age)
    order by i.created_at limit p_most for update skip locked);
  get diagnostics v_rows = row_count;
  return v_rows;
end
$$;

-- Processes that are long dead and left nothing open. A process without a row counts as dead everywhere.
create function purge_instances(p_age interval, p_most integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_rows integer;
begin
  delete from instance where id in (
    select i.id from instance i
    where i.lease_until < clock_timestamp() - kept_at_least(p_age)
      and not exists (select from attempt a where a.state = 'sent' and a.instance_id = i.id)
    order by i.lease_until limit p_most for update skip locked);
  get diagnostics v_rows = row_count;
  return v_rows;
end
$$;

grant execute on function purge_refusals, purge_idempotency, purge_instances to purser_app;
revoke execute on function purge_refusals, purge_idempotency, purge_instances, kept_at_least from public;
