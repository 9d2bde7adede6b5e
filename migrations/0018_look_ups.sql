-- Of every attempt whose cost is not known for sure a provider can be asked, if it can tell: of an answered one too, whose
-- answer came without usage.
drop index attempt_to_look_up;
create index attempt_to_look_up on attempt (resolved_at)
  where (outcome in ('lost', 'cut_stream', 'timeout', 'aborted', 'network_after_send') or detail ? 'certainty')
    and detail->>'providerRequestId' is not null and not detail ? 'lookedUp';

-- Keeps the answer that came with a correction, if the call has none. True when the call's answer is this attempt's, now or
-- since before: what an answer truly cost is as useful as the answer.
create or replace function store_answer(p_hold transfer, p_answer_id uuid, p_answer jsonb) returns boolean
language plpgsql as $$
begin
  if p_answer_id is not null then
    insert into payload (id, project_id, run_id, kind, body)
      values (p_answer_id, p_hold.project_id, p_hold.run_id, 'answer', p_answer) on conflict do nothing;
    update call set state = 'answered', answer_id = p_answer_id, answer_attempt = p_hold.attempt,
        answered_at = clock_timestamp(), stop_reason = null, stop_detail = null
      where id = p_hold.call_id and state = 'open';
  end if;
  return exists (
    select from call c where c.id = p_hold.call_id and c.state = 'answered' and c.answer_attempt = p_hold.attempt
  );
end
$$;

-- That a provider was asked what became of a request, where its answer changed nothing: of many who ask at once one books
-- it, and what the others were told does not stand in its place.
create or replace function note_look_up(p_project uuid, p_call uuid, p_number integer, p_answer text) returns void
language sql security definer set search_path = public, pg_temp as $$
  update attempt a set detail = jsonb_build_object('lookedUp', p_answer) || a.detail
    where a.call_id = p_call and a.number = p_number and a.project_id = p_project and a.state = 'resolved'
$$;
