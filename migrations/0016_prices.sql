-- Prices of everything that a provider bills, and what is sold above or in another currency than it costs.

-- What a price has besides the columns that it had from the first: `cacheWriteNanoPerMillion`, `reasoningNanoPerMillion`,
-- `perImageNano`, `toolFeesNano` and `tiers`, in the one form in which prices stand in a plan; null when there is nothing.
-- No row that stands is written again.
alter table price add column more jsonb check (jsonb_typeof(more) = 'object' and more <> '{}');

-- A price as it stands in a plan.
create function prices_of(p_price price) returns jsonb
language sql immutable as $$
  select jsonb_build_object('inputNanoPerMillion', p_price.input_nano_per_million::text,
    'cachedInputNanoPerMillion', p_price.cached_input_nano_per_million::text,
    'outputNanoPerMillion', p_price.output_nano_per_million::text, 'perCallNano', p_price.per_call_nano::text)
    || coalesce(p_price.more, '{}')
$$;

-- In force from now on, or from a later time on. Asked again with the same id it changes nothing.
create or replace function add_price(p_price jsonb) returns void
language sql security definer set search_path = public, pg_temp as $$
  insert into price (id, provider, upstream_model, currency, input_nano_per_million, cached_input_nano_per_million,
    output_nano_per_million, per_call_nano, more, effective_at)
  select p.id, p.provider, p.upstream_model, p.currency, p.input_nano_per_million, p.cached_input_nano_per_million,
    p.output_nano_per_million, p.per_call_nano, p.more, greatest(p.effective_at, clock_timestamp())
  from jsonb_populate_record(null::price, p_price) p on conflict (id) do nothing
$$;

-- What a usage costs at the prices of a plan, as `chargeOf` in src/domain/pricing.ts has it: one ceil over all tokens, at
-- the last tier whose threshold the prompt exceeds. Null for a usage that is none. `div` is exact where `/` rounds.
create function charge_of(p_prices jsonb, p_usage jsonb) returns numeric
language plpgsql immutable parallel safe as $$
declare
  v_tier jsonb := p_prices;
  v_input numeric;
  v_cached numeric;
  v_written numeric;
  v_output numeric;
  v_reasoning numeric;
  v_fees numeric;
  v_key text;
begin
  foreach v_key in array array['input', 'cachedInput', 'output', 'cacheWrite', 'reasoning', 'images'] loop
    if not pg_input_is_valid(coalesce(p_usage->>v_key, case when v_key in ('cacheWrite', 'reasoning', 'images') then '0'
      else '' end), 'bigint') then return null; end if;
  end loop;
  v_input := (p_usage->>'input')::numeric;
  v_cached := (p_usage->>'cachedInput')::numeric;
  v_written := coalesce((p_usage->>'cacheWrite')::numeric, 0);
  v_output := (p_usage->>'output')::numeric;
  v_reasoning := coalesce((p_usage->>'reasoning')::numeric, 0);
  if p_prices ? 'tiers' then
    select coalesce((array_agg(t.tier order by t.place desc))[1], p_prices) into v_tier
      from jsonb_array_elements(p_prices->'tiers') with ordinality as t(tier, place)
      where v_input > (t.tier->>'aboveInputTokens')::numeric;
  end if;
  v_fees := (p_prices->>'perCallNano')::numeric
    + coalesce((p_usage->>'images')::numeric * (p_prices->>'perImageNano')::numeric, 0);
  if p_usage ? 'toolUses' then
    v_fees := v_fees + (
      select coalesce(sum(case when pg_input_is_valid(u.value, 'bigint') then u.value::numeric end
        * coalesce((p_prices->'toolFeesNano'->>u.key)::numeric, 0)), 0)
      from jsonb_each_text(p_usage->'toolUses') u);
  end if;
  return v_fees + div(
    (v_input - v_cached - v_written) * (v_tier->>'inputNanoPerMillion')::numeric
    + v_cached * (v_tier->>'cachedInputNanoPerMillion')::numeric
    + v_written * coalesce(v_tier->>'cacheWriteNanoPerMillion', v_tier->>'inputNanoPerMillion')::numeric
    + (v_output - v_reasoning) * (v_tier->>'outputNanoPerMillion')::numeric
    + v_reasoning * coalesce(v_tier->>'reasoningNanoPerMillion', v_tier->>'outputNanoPerMillion')::numeric
    + 999999, 1000000);
end
$$;

-- What something is sold at that costs so much: above cost by basis points, in another currency at a quote (`p_sell` nano
-- of the cost's for `p_buy` of the other), rounded up once. As `sellOf` in src/domain/selling.ts has it.
create function sell_of(p_cost numeric, p_bps numeric, p_sell numeric, p_buy numeric) returns numeric
language sql immutable parallel safe as $$
  select div(p_cost * (10000 + p_bps) * p_buy + 10000 * p_sell - 1, 10000 * p_sell)
$$;

-- Prices of tokens that are sold, in the form of a plan.
create function sell_tokens(p_cost jsonb, p_bps numeric, p_sell numeric, p_buy numeric) returns jsonb
language sql immutable parallel safe as $$
  select jsonb_strip_nulls(jsonb_build_object(
    'inputNanoPerMillion', s.input::text,
    'cachedInputNanoPerMillion', sell_of((p_cost->>'cachedInputNanoPerMillion')::numeric, p_bps, p_sell, p_buy)::text,
    'cacheWriteNanoPerMillion', nullif(
      sell_of((p_cost->>'cacheWriteNanoPerMillion')::numeric, p_bps, p_sell, p_buy), s.input)::text,
    'outputNanoPerMillion', s.output::text,
    'reasoningNanoPerMillion', nullif(
      sell_of((p_cost->>'reasoningNanoPerMillion')::numeric, p_bps, p_sell, p_buy), s.output)::text))
  from (
    select sell_of((p_cost->>'inputNanoPerMillion')::numeric, p_bps, p_sell, p_buy) as input,
      sell_of((p_cost->>'outputNanoPerMillion')::numeric, p_bps, p_sell, p_buy) as output
  ) s
$$;

-- The prices of a plan whose attempt costs `p_cost`, in the form of a plan.
create function sell_prices(p_cost jsonb, p_bps numeric, p_sell numeric, p_buy numeric) returns jsonb
language sql immutable parallel safe as $$
  select sell_tokens(p_cost, p_bps, p_sell, p_buy) || jsonb_strip_nulls(jsonb_build_object(
    'perCallNano', sell_of((p_cost->>'perCallNano')::numeric, p_bps, p_sell, p_buy)::text,
    'perImageNano', sell_of((p_cost->>'perImageNano')::numeric, p_bps, p_sell, p_buy)::text,
    'toolFeesNano', (
      select jsonb_object_agg(f.key, sell_of(f.value::numeric, p_bps, p_sell, p_buy)::text)
      from jsonb_each_text(p_cost->'toolFeesNano') f),
    'tiers', (
      select jsonb_agg(jsonb_build_object('aboveInputTokens', t.tier->'aboveInputTokens')
        || sell_tokens(t.tier, p_bps, p_sell, p_buy) order by t.place)
      from jsonb_array_elements(p_cost->'tiers') with ordinality as t(tier, place))))
$$;

-- What is sold above cost, or below it, is the seller's; what is sold in another currency than it costs is exchanged.
alter table allowed_movement disable trigger allowed_movement_is_closed;
insert into allowed_movement (debit_kind, credit_kind, code) values
  ('provider_cost', 'revenue', 'margin'),
  ('revenue', 'provider_cost', 'margin'),
  ('provider_cost', 'exchange', 'cost_exchange'),
  ('exchange', 'provider_cost', 'cost_exchange');
alter table allowed_movement enable trigger allowed_movement_is_closed;

-- Such rows name their attempt, and no envelope and no run: whoever reads a customer's journal by those never meets them.
alter table transfer add constraint transfer_of_margin_is_the_sellers check (
  code not in ('margin', 'cost_exchange') or (envelope_id is null and run_id is null and call_id is not null
    and attempt is not null and amount > 0));
create index transfer_of_margin on transfer (call_id, attempt) where code in ('margin', 'cost_exchange');

create or replace function ensure_counterparties(p_project uuid, p_currency text) returns void
language sql as $$
  insert into account (id, project_id, kind, currency)
  select uuidv7(), p_project, k.kind, p_currency
  from unnest(array['outside', 'provider_cost', 'overage', 'exchange', 'breakage', 'revenue']) as k(kind)
  where not exists (
    select from account a where a.project_id = p_project and a.kind = k.kind and a.currency = p_currency
  )
  on conflict do nothing
$$;

-- `margin`: {margin_id, sold_id, bought_id, cost, currency, converted, quote_id}: what the provider bills, in its currency,
-- and what that is in the pocket's. Left out where that is what is sold.
alter type settle_item add attribute margin jsonb;

create function is_margin(p_margin jsonb) returns boolean
language sql immutable as $$
  select coalesce((p_margin->>'cost')::numeric between 0 and 1000000000000000
    and (p_margin->>'converted')::numeric between 0 and 1000000000000000, true)
$$;

-- What an attempt was sold for, in the pocket's currency, with its margin; or how much each of it changed.
create type sold_attempt as (project_id uuid, call_id uuid, attempt integer, currency text, sell bigint, margin jsonb);

-- Books, of what providers were to get: what is the seller's, and what they bill in another currency. Negative amounts go
-- the other way; what is nothing is left out.
create function post_margins(p_sold sold_attempt[], p_now timestamptz) returns void
language plpgsql as $$
begin
  perform ensure_counterparties(m.project_id, m.currency) from (
    select distinct s.project_id, c.currency from unnest(p_sold) s
    cross join lateral (values (s.currency), (s.margin->>'currency')) c(currency)
    where counterparty(s.project_id, 'revenue', c.currency) is null
      or counterparty(s.project_id, 'exchange', c.currency) is null
      or counterparty(s.project_id, 'provider_cost', c.currency) is null
    order by 1, 2
  ) m;
  insert into transfer (id, recorded_at, project_id, code, debit_account, credit_account, currency, amount, call_id, attempt,
      quote_id)
    select m.id, p_now, s.project_id, m.code, case when m.amount > 0 then source.id else target.id end,
      case when m.amount > 0 then target.id else source.id end, m.currency, abs(m.amount), s.call_id, s.attempt, m.quote_id
    from unnest(p_sold) s
    cross join lateral jsonb_to_record(s.margin) as i(margin_id uuid, sold_id uuid, bought_id uuid, cost bigint,
      currency text, converted bigint, quote_id uuid)
    cross join lateral (values
      (i.margin_id, 'margin', s.currency, 'provider_cost', 'revenue', s.sell - i.converted, null::uuid),
      (i.sold_id, 'cost_exchange', s.currency, 'provider_cost', 'exchange',
        case when i.quote_id is null then 0 else i.converted end, i.quote_id),
      (i.bought_id, 'cost_exchange', i.currency, 'exchange', 'provider_cost',
        case when i.quote_id is null then 0 else i.cost end, i.quote_id)
    ) as m(id, code, currency, source, target, amount, quote_id)
    cross join lateral (select a.id from account a where a.project_id = s.project_id and a.kind = m.source
      and a.currency = m.currency and a.kind not in ('wallet', 'pocket') limit 1) source
    cross join lateral (select a.id from account a where a.project_id = s.project_id and a.kind = m.target
      and a.currency = m.currency and a.kind not in ('wallet', 'pocket') limit 1) target
    where m.amount <> 0;
end
$$;

-- Verdicts beside those that it had: settled_unused (its call had another answer already).

create or replace function post_settles(p_pockets locked_pocket[], p_items settle_item[], p_now timestamptz) returns odd_verdict[]
language plpgsql as $$
#variable_conflict use_column
declare
  v_plain integer[];
  v_leases bigint;
  v_counted bigint;
  v_answered bigint;
  v_resolved bigint;
  v_moved bigint;
  v_unused integer[];
begin
  -- The parts run in the order in which the last lines ask for them: leases are locked by id, then calls by id (two
  -- attempts of one, on two pockets, may be answering it), and then all that the pockets' locks guard.
  with plain as materialized (
    select s.*, case when s.amount is null then 0 else coalesce(s.tokens, s.tokens_held) end as tokens_used,
      row_number() over of_pocket as moves, sum(coalesce(s.amount, 0)) over of_pocket as charged,
      sum(s.released) over of_pocket as freed
    from (
      select i.ord, i.project_id, i.account_id, i.hold_id, i.call_id, i.attempt, i.resolution_id, i.amount, i.tokens,
        i.certainty, i.outcome, i.detail, i.usage, i.answer_id, i.answer, p.place as pocket, p.cost, p.currency,
        p.balance_class, p.version, p.balance, p.held, a.place, a.envelope_id, a.run_id, a.route, a.released, a.tokens_held, a.leases
      from unnest(p_items) i
      join unnest(p_pockets) p on p.id = i.account_id and p.project_id = i.project_id
      cross join lateral (
        select a.ctid as place, a.envelope_id, a.run_id, a.plan->>'route' as route, a.held as released,
          a.tokens as tokens_held, a.leases
        from attempt a where a.call_id = i.call_id and a.number = i.attempt and a.hold_id = i.hold_id
          and a.account_id = p.id and a.state = 'sent' and coalesce(i.amount, 0) between 0 and a.held
          and coalesce(i.tokens, 0) between 0 and 1000000000000000 and (i.margin is null or is_margin(i.margin)) limit 1
      ) a
    ) s window of_pocket as (partition by s.account_id order by s.ord)
  ), use as materialized (
    select x.id, sum(s.released) as held_amount, sum(s.tokens_held) as held_tokens, count(*) as held_calls,
      sum(coalesce(s.amount, 0)) as used_amount, sum(s.tokens_used) as used_tokens, count(s.amount) as used_calls
    from plain s cross join lateral unnest(s.leases) as x(id) group by x.id order by x.id
  ), counted as (
    update lease l set held = l.held - t.held, used = l.used + t.used,
      leased = greatest(l.leased, l.used + t.used + l.held - t.held)
    from (select * from use limit (select count(*) from use)) m
    cross join lateral (
      select x.ctid as place, limit_need(x.measure, m.held_amount, m.held_tokens, m.held_calls) as held,
        limit_need(x.measure, m.used_amount, m.used_tokens, m.used_calls) as used
      from lease x where x.id = m.id limit 1
    ) t where l.ctid = t.place returning 1
  ), stored as (
    insert into payload (id, project_id, run_id, kind, body)
      select s.answer_id, s.project_id, s.run_id, 'answer', s.answer from plain s where s.answer_id is not null
      order by s.answer_id
      on conflict do nothing
  ), answered as (
    update call c set state = 'answered', answer_id = s.answer_id, answer_attempt = s.attempt, answered_at = p_now,
      stop_reason = null, stop_detail = null
    from (select * from plain where answer_id is not null order by call_id limit cardinality(p_items)) s
    cross join lateral (
      select x.ctid as place from call x where x.id = s.call_id and x.state = 'open' limit 1
    ) t where c.ctid = t.place returning c.id
  ), resolved as (
    update attempt a set state = 'resolved', outcome = s.outcome, detail = s.detail, usage = s.usage,
      tokens_used = s.tokens_used, resolved_at = p_now
    from (select * from plain limit cardinality(p_items)) s where a.ctid = s.place returning 1
  ), moved as (
    update account a set posted_debit = a.posted_debit + m.charged, pending_debit = a.pending_debit - m.freed,
      version = a.version + m.moves, moved_at = p_now
    from (
      select s.pocket, max(s.moves) as moves, max(s.charged) as charged, max(s.freed) as freed from plain s
      group by s.pocket limit cardinality(p_items)
    ) m where a.ctid = m.pocket returning m.moves
  ), posted as (
    insert into transfer (id, recorded_at, project_id, code, debit_account, credit_account, currency, amount, released,
        pending_id, envelope_id, run_id, call_id, attempt, certainty, use, debit_version, debit_balance, debit_held)
      select s.resolution_id, p_now, s.project_id, case when s.amount is null then 'void' else 'capture' end, s.account_id,
        s.cost, s.currency, coalesce(s.amount, 0), s.released, s.hold_id, s.envelope_id, s.run_id, s.call_id, s.attempt,
        case when s.amount is not null then s.certainty end,
        case when s.amount is not null then
          case when s.call_id in (select c.id from answered c) then 'useful' else 'wasted' end end,
        s.version + s.moves, s.balance - s.charged, s.held - s.freed
      from plain s order by s.account_id, s.ord
  ), told as (
    insert into event (project_id, run_id, kind, data)
      select s.project_id, s.run_id, 'attempt.settled', jsonb_build_object('callId', s.call_id, 'attempt', s.attempt,
        'route', s.route, 'balanceClass', s.balance_class, 'currency', s.currency, 'outcome', s.outcome,
        'heldNano', s.released::text, 'chargedNano', coalesce(s.amount, 0)::text, 'certainty', s.certainty)
      from plain s where s.run_id is not null
  )
  select (select count(*) from use), (select count(*) from counted), (select count(*) from answered),
    (select count(*) from resolved), (select sum(moves) from moved), (select array_agg(s.ord) from plain s),
    (select array_agg(s.ord) from plain s where s.answer_id is not null and s.call_id not in (select c.id from answered c))
    into v_leases, v_counted, v_answered, v_resolved, v_moved, v_plain, v_unused;
  if v_counted <> v_leases or v_resolved <> cardinality(v_plain) or v_moved <> cardinality(v_plain) then
    raise exception 'a lease, an attempt or a pocket of the batch has changed meanwhile' using errcode = 'PU002';
  end if;
  -- In a statement of its own: most batches have nothing of the kind, and pay nothing for it.
  if exists (select from unnest(p_items) i where i.margin is not null) then
    perform post_margins(array(
      select row(i.project_id, i.call_id, i.attempt, p.currency, i.amount, i.margin)::sold_attempt
      from unnest(p_items) i join unnest(p_pockets) p on p.id = i.account_id
      where i.margin is not null and i.amount is not null and i.ord = any(v_plain) order by i.ord
    ), p_now);
  end if;
  if cardinality(v_plain) = cardinality(p_items) and v_unused is null then return '{}'; end if;
  return array(
    select row(i.ord, i.hold_id, case when i.ord = any(v_unused) then 'settled_unused' else 'apart' end, false)::odd_verdict
    from unnest(p_items) i where (i.ord = any(v_plain)) is not true or i.ord = any(v_unused) order by i.ord
  );
end
$$;

-- What an attempt's margin rows add up to: the margin, what its cost is in the pocket's currency when it is another one,
-- and that cost.
create function margin_of(p_hold transfer, out margin bigint, out converted bigint, out cost bigint)
language sql stable as $$
  select coalesce(sum(case when t.code <> 'margin' then 0 when t.debit_account = p_hold.credit_account then t.amount
      else -t.amount end), 0)::bigint,
    coalesce(sum(case when t.code = 'margin' or t.currency <> p_hold.currency then 0
      when t.debit_account = p_hold.credit_account then t.amount else -t.amount end), 0)::bigint,
    coalesce(sum(case when t.code = 'margin' or t.currency = p_hold.currency then 0
      when c.kind = 'provider_cost' then t.amount else -t.amount end), 0)::bigint
  from transfer t join account c on c.id = t.credit_account
  where t.call_id = p_hold.call_id and t.attempt = p_hold.attempt and t.code in ('margin', 'cost_exchange')
$$;

-- Brings an attempt's margin to what it is by a correction: its cost is that of the usage that is told; of none at all when
-- nothing is charged; else the same part of its hold at cost that is charged of its hold. An estimate costs its hold at most.
-- The caller holds the attempt's locks.
create function correct_margin(p_hold transfer, p_attempt attempt, p_item jsonb) returns void
language plpgsql as $$
declare
  v_cost jsonb := p_attempt.plan->'cost';
  v_quote jsonb := nullif(v_cost->'quote', 'null');
  v_amount numeric := (p_item->>'amount')::numeric;
  v_held numeric := (v_cost->>'held')::numeric;
  v_new numeric;
  v_converted numeric;
  v_old record;
begin
  if v_cost is null then return; end if;
  v_new := charge_of(v_cost->'prices', nullif(p_item->'usage', 'null'));
  if v_new is null then
    v_new := case when v_amount = 0 then 0
      else least(v_held, div(v_held * v_amount + p_hold.amount - 1, greatest(p_hold.amount, 1))) end;
  elsif p_item->>'certainty' <> 'billed' then
    v_new := least(v_new, v_held);
  end if;
  v_converted := sell_of(v_new, 0, coalesce((v_quote->>'sell')::numeric, 1), coalesce((v_quote->>'buy')::numeric, 1));
  select * into v_old from margin_of(p_hold);
  -- Without an exchange what is sold and is no margin is the cost: there is none to compare with.
  if v_quote is null then v_old.converted := v_converted; end if;
  perform post_margins(array[row(p_hold.project_id, p_hold.call_id, p_hold.attempt, p_hold.currency,
    v_amount - v_old.margin - v_old.converted, jsonb_build_object('margin_id', uuidv7(), 'sold_id', uuidv7(),
      'bought_id', uuidv7(), 'currency', v_cost->>'currency', 'quote_id', v_quote->>'id',
      'converted', v_converted - v_old.converted, 'cost', v_new - v_old.cost))::sold_attempt], clock_timestamp());
end
$$;

-- The verdict `settled_unused` as in `post_settles`.
create or replace function settle_in_pocket(p_project uuid, p_account uuid, p_item jsonb, p_take_over boolean) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  item record;
  v_account account;
  v_attempt attempt;
  v_hold transfer;
  v_known transfer;
  v_use text;
  v_charge bigint;
  v_from_hold bigint;
  v_answers boolean;
  v_now timestamptz;
  v_margin jsonb := nullif(p_item->'margin', 'null');
begin
  select i.* into item from jsonb_to_record(p_item) as i(hold_id uuid, resolution_id uuid, overage_id uuid, debt_id uuid,
    amount bigint, tokens bigint, certainty text, outcome text, detail jsonb, usage jsonb, answer_id uuid, answer jsonb);
  select * into v_account from account where id = p_account and project_id = p_project and kind = 'pocket'
    for no key update;
  select * into v_hold from transfer t where t.id = item.hold_id and t.project_id = p_project and t.code = 'hold'
    and t.debit_account = p_account;
  if not found then return 'unknown_hold'; end if;
  v_charge := coalesce(item.amount, 0);
  if v_charge not between 0 and 1000000000000000 or item.tokens not between 0 and 1000000000000000
    or not is_margin(v_margin) then
    return 'invalid_amount';
  end if;
  v_from_hold := least(v_charge, v_hold.amount);
  select * into v_known from transfer t where t.pending_id = item.hold_id;
  if found then
    return case
      when v_known.id <> item.resolution_id then 'already_resolved'
      when v_known.amount <> v_from_hold or v_charge - v_from_hold <> (select coalesce(sum(t.amount), 0) from transfer t
          where t.id in (item.overage_id, item.debt_id) and t.code = 'overage') then 'mismatch'
      when is_same_settlement(v_hold, v_known, p_item) then 'replayed'
      else 'mismatch' end;
  end if;
  select * into v_attempt from attempt a where a.call_id = v_hold.call_id and a.number = v_hold.attempt;
  if p_take_over and exists (
    select from instance i where i.id = v_attempt.instance_id and i.lease_until > clock_timestamp()
  ) then return 'owner_alive'; end if;
  v_now := clock_timestamp();
  if v_account.moved_at > v_now + clock_tolerance() then
    raise exception 'the clock of the database stands behind the last movement of a pocket' using errcode = 'PU001';
  end if;
  perform from lease where id = any(v_attempt.leases) order by id for no key update;
  v_answers := store_answer(v_hold, item.answer_id, item.answer);
  v_use := case when item.amount is not null then case when v_answers then 'useful' else 'wasted' end end;
  update account set posted_debit = posted_debit + v_from_hold, pending_debit = pending_debit - v_hold.amount,
      version = version + 1, moved_at = v_now where id = p_account returning * into v_account;
  insert into transfer (id, recorded_at, project_id, code, debit_account, credit_account, currency, amount, released,
      pending_id, envelope_id, run_id, call_id, attempt, certainty, use, debit_version, debit_balance, debit_held)
    values (item.resolution_id, v_now, p_project, case when item.amount is null then 'void' else 'capture' end, p_account,
      v_hold.credit_account, v_hold.currency, v_from_hold, v_hold.amount, v_hold.id, v_hold.envelope_id, v_hold.run_id,
      v_hold.call_id, v_hold.attempt, case when item.amount is not null then item.certainty end, v_use, v_account.version,
      v_account.posted_credit - v_account.posted_debit, v_account.pending_debit);
  if v_charge > v_hold.amount then
    perform book_overage(p_project, p_account, v_charge - v_hold.amount, least(v_charge - v_hold.amount,
        v_account.posted_credit - v_account.posted_debit - v_account.pending_debit), item.overage_id, item.debt_id,
      jsonb_build_object('envelope_id', v_hold.envelope_id, 'run_id', v_hold.run_id, 'call_id', v_hold.call_id,
        'attempt', v_hold.attempt, 'certainty', item.certainty, 'use', v_use));
  end if;
  if v_margin is not null and item.amount is not null then
    perform post_margins(array[row(p_project, v_hold.call_id, v_hold.attempt, v_hold.currency, v_charge, v_margin)::sold_attempt],
      v_now);
  end if;
  update attempt a set state = 'resolved', outcome = item.outcome, detail = item.detail, usage = item.usage,
    resolved_at = v_now, tokens_used = case when item.amount is null then 0 else coalesce(item.tokens, a.tokens) end
    where a.call_id = v_hold.call_id and a.number = v_hold.attempt;
  perform settle_leases(v_attempt.leases, v_hold.amount, v_attempt.tokens, 1, v_charge,
    case when item.amount is null then 0 else coalesce(item.tokens, v_attempt.tokens) end,
    case when item.amount is null then 0 else 1 end);
  if v_hold.run_id is not null then
    insert into event (project_id, run_id, kind, data) values (p_project, v_hold.run_id, 'attempt.settled',
      jsonb_build_object('callId', v_hold.call_id, 'attempt', v_hold.attempt, 'route', v_attempt.plan->>'route',
        'balanceClass', v_account.balance_class, 'currency', v_hold.currency, 'outcome', item.outcome,
        'heldNano', v_hold.amount::text, 'chargedNano', v_charge::text, 'certainty', item.certainty));
  end if;
  return case when item.answer_id is not null and not v_answers then 'settled_unused' else 'settled' end;
end
$$;

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
  perform correct_margin(v_hold, v_attempt, p_item);
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

-- What a provider says that it bills, as it was sent. Nothing is booked by it; the same one twice is told.
create table invoice (
  id uuid primary key,
  organisation_id uuid not null,
  provider text not null,
  digest bytea not null check (length(digest) = 32),
  document text not null,
  period_from timestamptz not null,
  period_to timestamptz not null,
  api_key_id uuid not null,
  recorded_at timestamptz not null default clock_timestamp(),
  check (period_from < period_to),
  unique (organisation_id, provider, digest)
);

create trigger invoice_is_append_only before update or delete on invoice for each row execute function refuse_change();
create trigger invoice_keeps_its_rows before truncate on invoice for each statement execute function refuse_change();

grant select, insert on invoice to purser_app;
revoke execute on function prices_of, charge_of, sell_of, sell_tokens, sell_prices, is_margin, post_margins, margin_of,
  correct_margin from public;
grant execute on function prices_of, charge_of, sell_of, sell_tokens, sell_prices to purser_app;
