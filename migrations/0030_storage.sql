-- Prompts and answers are kept as their project says: for ever, for some days after a run's end, or no longer than the
-- run. Of what is erased a digest stays, so that whoever has the text can still prove what it was.

alter table project
  add column storage text not null default 'full' check (storage in ('full', 'hash_only')),
  -- Null: for ever.
  add column keep_days integer check (keep_days between 1 and 36500);

alter table payload
  alter column body drop not null,
  -- SHA-256 of the body that was erased: `payload_digest` of it.
  add column digest bytea check (length(digest) = 32),
  add column erased_at timestamptz,
  add constraint payload_is_there_or_erased
    check ((body is null) = (digest is not null) and (body is null) = (erased_at is not null));

-- What of calls that belong to no run is to be erased. A run's is found by its calls and its id.
create index payload_of_no_run on payload (project_id, created_at) where run_id is null and body is not null;
create index payload_erased on payload (id) where body is null;

alter table run
  -- From this commit on nothing is answered out of what it was answered; `erased_at`: nothing of it is left.
  add column erasing_at timestamptz,
  add column erased_at timestamptz,
  -- Of the output that went when it was marked.
  add column output_digest bytea check (length(output_digest) = 32),
  -- What Temporal had of its workflow is gone, too.
  add column history_erased_at timestamptz,
  add constraint run_is_over_before_it_is_erased
    check ((erasing_at is null or finished_at is not null) and (erased_at is null or erasing_at is not null)
      and (output_digest is null or erasing_at is not null and output is null)
      and (history_erased_at is null or erased_at is not null));

create index run_to_erase on run (project_id, finished_at)
  where parent_run_id is null and finished_at is not null and erasing_at is null;
create index run_erasing on run (erasing_at) where erasing_at is not null and erased_at is null;
create index run_with_history on run (erased_at) where erased_at is not null and history_erased_at is null;
create index run_by_source on run (source_run_id) where source_run_id is not null;

-- The text that Postgres writes of a jsonb is one for equal values, however they were written.
create function payload_digest(p_body jsonb) returns bytea language sql immutable strict parallel safe as $$
  select sha256(convert_to(p_body::text, 'UTF8'))
$$;

-- How long what is over stays where only digests are kept: for whoever waits for its end, or repeats a request whose
-- answer got lost on the way. Longer than the longest activity (15 minutes), so that no straggler of a run writes later.
create function erase_grace() returns interval language sql immutable as $$ select interval '20 minutes' $$;

-- Null: for ever.
create function kept_for(p_project project) returns interval language sql immutable as $$
  select case when p_project.storage = 'hash_only' then erase_grace() else make_interval(days => p_project.keep_days) end
$$;

-- All runs of a tree.
create function tree_of_run(p_root uuid) returns setof uuid language sql stable as $$
  with recursive tree as (
    select r.id from run r where r.id = p_root
    union all
    select r.id from tree t join run r on r.parent_run_id = t.id
  ) select id from tree
$$;

-- Marks runs whose time is over, and erases what they delivered, whole trees at once: a run may read what its children were answered. A tree that is
-- being forked stays until the fork is over: see `hold_source`. Returns how many roots it marked.
create function begin_erasing(p_most integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_project project;
  v_root uuid;
  v_tree uuid[];
  v_marked integer := 0;
begin
  for v_project in select * from project p where kept_for(p) is not null order by p.id loop
    for v_root in
      select r.id from run r
      where r.project_id = v_project.id and r.parent_run_id is null and r.erasing_at is null
        and r.finished_at < clock_timestamp() - kept_for(v_project)
        and not exists (select from run f where f.source_run_id = r.id and f.reuse_before is not null
          and f.finished_at is null)
      order by r.finished_at limit p_most - v_marked for no key update of r skip locked
    loop
      v_tree := array(select tree_of_run(v_root));
      perform from run where id = any(v_tree) order by id for no key update;
      -- A statement of its own, with what was committed before the locks were there.
      continue when exists (select from run r where r.id = any(v_tree) and (r.finished_at is null or exists (
        select from run f where f.source_run_id = r.id and f.reuse_before is not null and f.finished_at is null)));
      update run set erasing_at = clock_timestamp(), output_digest = payload_digest(nullif(output, 'null')),
          output = null
        where id = any(v_tree) and erasing_at is null;
      v_marked := v_marked + 1;
    end loop;
    exit when v_marked >= p_most;
  end loop;
  return v_marked;
end
$$;

-- Keeps what a fork uses again from being erased, once the fork is written: false when it is too late. The last thing of
-- the fork's transaction: whoever ends a run locks its money before its row.
create function hold_source(p_project uuid, p_run uuid) returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  perform from run where id = p_run and project_id = p_project and erasing_at is null for share;
  return found;
end
$$;

-- Erases those of the payloads that may go: of runs that are marked, and of calls of no run whose time is over. Returns
-- how many.
create function erase_payloads(p_ids uuid[]) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_ids uuid[];
  v_erased integer;
begin
  v_ids := array(select p.id from payload p where p.id = any(p_ids) and p.body is not null order by p.id
    for no key update);
  update payload p set digest = payload_digest(p.body), body = null, erased_at = clock_timestamp()
    where p.id = any(v_ids) and case
      when p.run_id is null then
        p.created_at < clock_timestamp() - (select kept_for(o) from project o where o.id = p.project_id)
      else exists (select from run r where r.id = p.run_id and r.erasing_at is not null) end;
  get diagnostics v_erased = row_count;
  return v_erased;
end
$$;

-- Keeps the answer that came with a correction, if the call has none; of a run that is erased, its digest. True when the
-- call's answer is this attempt's, now or since before: what an answer truly cost is as useful as the answer.
create or replace function store_answer(p_hold transfer, p_answer_id uuid, p_answer jsonb) returns boolean
language plpgsql as $$
declare
  v_erasing timestamptz;
begin
  if p_answer_id is not null then
    -- One that is not over is not erased before this commits.
    select r.erasing_at into v_erasing from run r where r.id = p_hold.run_id and r.finished_at is not null for share;
    insert into payload (id, project_id, run_id, kind, body, digest, erased_at)
      values (p_answer_id, p_hold.project_id, p_hold.run_id, 'answer',
        case when v_erasing is null then p_answer end,
        case when v_erasing is not null then payload_digest(p_answer) end,
        case when v_erasing is not null then clock_timestamp() end) on conflict do nothing;
    update call set state = 'answered', answer_id = p_answer_id, answer_attempt = p_hold.attempt,
        answered_at = clock_timestamp(), stop_reason = null, stop_detail = null
      where id = p_hold.call_id and state = 'open';
  end if;
  return exists (
    select from call c where c.id = p_hold.call_id and c.state = 'answered' and c.answer_attempt = p_hold.attempt
  );
end
$$;

-- Whether a stored answer is this one, also once it is erased.
create function is_stored_answer(p_project uuid, p_id uuid, p_answer jsonb) returns boolean language sql stable as $$
  select exists (
    select from payload p where p.id = p_id and p.project_id = p_project
      and case when p.body is null then p.digest = payload_digest(p_answer) else p.body = p_answer end
  )
$$;

-- Whether a settlement that is asked for again has the certainty, the tokens and the answer it had. Tokens are not
-- compared once a correction has told others; nor is what answered nothing, with no answer at all.
create or replace function is_same_settlement(p_hold transfer, p_known transfer, p_item jsonb) returns boolean
language sql stable as $$
  select (p_known.code = 'void') = (i.amount is null)
    and p_known.certainty is not distinct from case when i.amount is not null then i.certainty end
    and (a.tokens_used is null or a.tokens_used = case when i.amount is null then 0 else coalesce(i.tokens, a.tokens) end
      or exists (select from transfer t where t.call_id = p_hold.call_id and t.attempt = p_hold.attempt
        and t.code in ('overage', 'correction') and t.code = 'correction'))
    and case when p_known.use = 'useful' then c.answer_id is not distinct from i.answer_id else true end
    and (i.answer_id is null or is_stored_answer(p_hold.project_id, i.answer_id, i.answer))
  from jsonb_to_record(p_item) as i(amount bigint, tokens bigint, certainty text, answer_id uuid, answer jsonb)
  join call c on c.id = p_hold.call_id
  join attempt a on a.call_id = p_hold.call_id and a.number = p_hold.attempt
$$;

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
    and (i.answer_id is null or is_stored_answer(p_hold.project_id, i.answer_id, i.answer))
  from jsonb_to_record(p_item) as i(tokens bigint, certainty text, usage jsonb, detail jsonb, answer_id uuid, answer jsonb)
  join transfer t on t.call_id = p_hold.call_id and t.attempt = p_hold.attempt and t.code in ('overage', 'correction')
    and t.seq = p_seq
  join call c on c.id = p_hold.call_id
  join attempt a on a.call_id = p_hold.call_id and a.number = p_hold.attempt
$$;

grant update (storage, keep_days) on project to purser_app;
grant update (erased_at, history_erased_at) on run to purser_app;
grant execute on function begin_erasing, hold_source, erase_payloads to purser_app;
revoke execute on function begin_erasing, hold_source, erase_payloads, tree_of_run, is_stored_answer from public;
