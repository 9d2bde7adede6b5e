-- Runs have parents, sources, priorities and deadlines; they may ask their owner, step down to cheaper routes, and wrap up.

alter table run
  -- The run whose remainder it spends, and the path of the kit call that started it.
  add column parent_run_id uuid references run,
  add column parent_path text,
  -- The run that it repeats. Its stored answers are used again where `reuse_before` is set: those of calls opened before.
  add column source_run_id uuid,
  add column reuse_before timestamptz,
  add column priority smallint not null default 3 check (priority between 1 and 5),
  -- By the clock on the wall; set when it begins.
  add column deadline_at timestamptz,
  add column downgraded_at timestamptz,
  -- It was told to stop and to deliver: its envelope is frozen, its wrap-up reserve is open.
  add column wrapping_up_at timestamptz,
  add constraint run_has_a_place check ((parent_run_id is null) = (parent_path is null));

create index run_by_parent on run (parent_run_id) where parent_run_id is not null;
-- What the reconciler and the queue look for.
create index run_open on run (id) where finished_at is null;

-- What a run asked its owner, and what it was told. The path is that of the kit call.
create table run_question (
  run_id uuid not null references run,
  path text not null,
  project_id uuid not null,
  question text not null,
  choices jsonb,
  asked_at timestamptz not null default clock_timestamp(),
  answer text,
  answered_at timestamptz,
  -- The key that answered; null when the time was over and the question's own answer was taken.
  answered_by uuid,
  primary key (run_id, path),
  check ((answer is null) = (answered_at is null))
);

grant select, insert on run_question to purser_app;
grant update (answer, answered_at, answered_by) on run_question to purser_app;
grant update (deadline_at, downgraded_at, wrapping_up_at) on run to purser_app;
