-- What a map works through: rows of a file that was uploaded, and what became of each row in each run.

create table dataset (
  id uuid primary key,
  project_id uuid not null references project,
  name text not null,
  format text not null check (format in ('csv', 'jsonl')),
  -- Of name, format and file: the same file under the same name is the same dataset.
  digest bytea not null,
  columns text[] not null,
  row_count integer not null check (row_count > 0),
  -- Of the rows as JSON.
  bytes bigint not null,
  most_row_bytes integer not null,
  created_at timestamptz not null default clock_timestamp(),
  -- Null until all rows are there: an upload that broke off goes on when it is sent again.
  stored_at timestamptz,
  unique (id, project_id),
  unique (project_id, digest)
);

create index dataset_by_project on dataset (project_id, id desc) where stored_at is not null;

create table dataset_row (
  dataset_id uuid not null,
  project_id uuid not null,
  -- From 1.
  number integer not null check (number > 0),
  body jsonb not null,
  primary key (dataset_id, number),
  foreign key (dataset_id, project_id) references dataset (id, project_id)
);

-- What a run asks about each row: stands here and not in the workflow's history, which carries cursors and counters.
create table run_map (
  run_id uuid not null references run,
  path text not null,
  project_id uuid not null,
  dataset_id uuid not null,
  ask jsonb not null,
  created_at timestamptz not null default clock_timestamp(),
  primary key (run_id, path),
  foreign key (dataset_id, project_id) references dataset (id, project_id)
);

-- What became of a row. `answered` and `failed` are final; `open` rows have calls, and no answer yet.
create table run_map_row (
  run_id uuid not null,
  path text not null,
  number integer not null check (number > 0),
  project_id uuid not null,
  outcome text not null check (outcome in ('answered', 'failed', 'open')),
  -- The last one gave the answer. A row has several when its run was downgraded, and none when it asked nothing.
  call_ids uuid[] not null,
  reason text,
  detail text,
  recorded_at timestamptz not null default clock_timestamp(),
  primary key (run_id, path, number),
  foreign key (run_id, path) references run_map (run_id, path),
  check (outcome <> 'answered' or (cardinality(call_ids) > 0 and reason is null)),
  check (outcome <> 'failed' or reason is not null)
);

grant select, insert on dataset, dataset_row, run_map, run_map_row to purser_app;
grant update (stored_at) on dataset to purser_app;
grant update (outcome, call_ids, reason, detail, recorded_at) on run_map_row to purser_app;
