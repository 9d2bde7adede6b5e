-- A correction of an attempt that had answered its call, told again as it was, without an answer, was taken for another one:
-- its use is that of the attempt, and an answer was asked of it. It has to bring one only if it was the first to.

-- Whether a correction that is told again says what it said. What the attempt keeps of it (tokens, usage, detail) is not
-- compared once another correction has told others; nor is what answered nothing, with no answer at all.
create or replace function is_same_correction(p_hold transfer, p_seq bigint, p_item jsonb) returns boolean
language sql stable as $$
  select t.certainty is not distinct from i.certainty
    and (exists (
      select from transfer later where later.call_id = p_hold.call_id and later.attempt = p_hold.attempt
        and later.code in ('overage', 'correction') and later.code = 'correction' and later.seq > p_seq
    ) or a.usage is not distinct from i.usage and a.tokens_used is not distinct from coalesce(i.tokens, a.tokens_used)
      and coalesce(a.detail, '{}') @> coalesce(i.detail, '{}'))
    and case when t.use = 'useful' then c.answer_id is not distinct from i.answer_id or i.answer_id is null and exists (
      select from transfer before where before.call_id = p_hold.call_id and before.attempt = p_hold.attempt
        and before.use = 'useful' and before.seq < p_seq and before.xid <> t.xid
    ) else true end
    and (i.answer_id is null or exists (
      select from payload p where p.id = i.answer_id and p.project_id = p_hold.project_id and p.body = i.answer
    ))
  from jsonb_to_record(p_item) as i(tokens bigint, certainty text, usage jsonb, detail jsonb, answer_id uuid, answer jsonb)
  join transfer t on t.call_id = p_hold.call_id and t.attempt = p_hold.attempt and t.code in ('overage', 'correction')
    and t.seq = p_seq
  join call c on c.id = p_hold.call_id
  join attempt a on a.call_id = p_hold.call_id and a.number = p_hold.attempt
$$;
