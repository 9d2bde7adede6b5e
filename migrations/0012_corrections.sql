-- Truth that comes after an attempt was resolved by estimate: stores the answer if the call has none, and books truth
-- minus what was charged. The money goes back to the pocket, or to the wallet once the envelope is closed.
-- p_item: {hold_id, correction_id, debt_id, amount, tokens, certainty, usage, detail, answer_id, answer}.
-- Verdicts: corrected | replayed | mismatch (these ids with another truth) | unresolved | unknown_hold | invalid_amount.
create or replace function correct(p_project uuid, p_account uuid, p_item jsonb) returns text
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  item record;
  v_pocket account;
  v_home account;
  v_hold transfer;
  v_attempt attempt;
  v_seq bigint;
  v_charged bigint;
  v_delta bigint;
  v_taken bigint;
  v_tags jsonb;
  v_answers boolean;
  v_wallet uuid;
  v_lot uuid;
  v_draw record;
  v_id uuid;
begin
  select i.* into item from jsonb_to_record(p_item) as i(hold_id uuid, correction_id uuid, debt_id uuid, amount bigint,
    tokens bigint, certainty text, usage jsonb, detail jsonb, answer_id uuid, answer jsonb);
  if item.amount not between 0 and 1000000000000000 or item.tokens not between 0 and 1000000000000000 then
    return 'invalid_amount';
  end if;
  select wallet_account(p_project, e.wallet_id, p.balance_class, p.currency) into v_wallet
    from account p join envelope e on e.id = p.envelope_id
    where p.id = p_account and p.project_id = p_project and p.kind = 'pocket';
  select * into v_home from account where id = v_wallet;
  select * into v_pocket from account where id = p_account and project_id = p_project and kind = 'pocket'
    for no key update;
  select * into v_hold from transfer t where t.id = item.hold_id and t.project_id = p_project and t.code = 'hold'
    and t.debit_account = p_account;
  if not found then return 'unknown_hold'; end if;
  if not exists (select from transfer t where t.pending_id = item.hold_id) then return 'unresolved'; end if;
  select max(t.seq) into v_seq from transfer k join transfer t on t.xid = k.xid and t.code = 'correction'
    and t.call_id = v_hold.call_id and t.attempt = v_hold.attempt
    where k.id in (item.correction_id, item.debt_id) and k.code = 'correction';
  select coalesce(sum(case when t.credit_account = v_hold.credit_account then t.amount else -t.amount end), 0)
    into v_charged
    from transfer t where t.envelope_id = v_hold.envelope_id and t.call_id = v_hold.call_id
      and t.attempt = v_hold.attempt and t.code in ('capture', 'overage', 'correction') and (v_seq is null or t.seq <= v_seq);
  if v_seq is not null then return case when v_charged = item.amount then 'replayed' else 'mismatch' end; end if;
  select * into v_attempt from attempt a where a.call_id = v_hold.call_id and a.number = v_hold.attempt;
  -- Before the call, as `post` has them: it may be answering another attempt of it.
  perform from lease where id = any(v_attempt.leases) order by id for no key update;
  v_answers := store_answer(v_hold, item.answer_id, item.answer);
  v_delta := item.amount - v_charged;
  v_tags := jsonb_build_object('envelope_id', v_hold.envelope_id, 'run_id', v_hold.run_id, 'call_id', v_hold.call_id,
    'attempt', v_hold.attempt, 'certainty', item.certainty, 'use', case when v_answers then 'useful' else 'wasted' end);
  if v_pocket.gate <> 'closed' then v_home := v_pocket; end if;
  if v_delta <= 0 then
    v_lot := lot_give(v_home.id, -v_delta, lot_of_pocket(p_account));
    perform post_transfer(item.correction_id, p_project, 'correction', v_hold.credit_account, v_home.id, -v_delta,
      v_tags || jsonb_build_object('lot_id', v_lot));
  else
    v_taken := least(v_delta, v_home.posted_credit - v_home.posted_debit - v_home.pending_debit);
    v_id := item.correction_id;
    for v_draw in select * from lot_take(v_home.id, v_taken) loop
      perform post_transfer(v_id, p_project, 'correction', v_home.id, v_hold.credit_account, v_draw.amount,
        v_tags || jsonb_build_object('lot_id', v_draw.lot_id));
      v_id := uuidv7();
    end loop;
    if v_delta > v_taken then
      perform post_transfer(item.debt_id, p_project, 'correction', counterparty(p_project, 'overage', v_pocket.currency),
        v_hold.credit_account, v_delta - v_taken, v_tags);
    end if;
  end if;
  perform settle_leases(v_attempt.leases, 0, 0, 0, v_delta, coalesce(item.tokens - v_attempt.tokens_used, 0), 0);
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
