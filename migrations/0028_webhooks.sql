-- Webhooks: what happens in a project is told to an address of its owner's, in the order of its events, until it is heard.

create table webhook (
  id uuid primary key,
  project_id uuid not null references project,
  url text not null,
  topics text[] not null,
  -- What deliveries are signed with: needed in clear to sign, so it is no hash.
  secret bytea not null,
  -- A wallet's money below which it is told once: [{balanceClass, currency, belowNano}].
  low_balance jsonb not null default '[]',
  created_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz,
  -- Events up to here have become deliveries.
  seen_xid xid8 not null default pg_snapshot_xmin(pg_current_snapshot()),
  seen_seq bigint not null default 0
);

create index webhook_of_project on webhook (project_id, id) where ended_at is null;
-- Read in order for every webhook; (run_id, xid, seq) is no order over a project.
create index event_of_project on event (project_id, xid, seq);

create table webhook_delivery (
  id uuid primary key,
  webhook_id uuid not null references webhook,
  project_id uuid not null,
  -- The event it tells of, or what else happened: the same is told once.
  source text not null,
  topic text not null,
  body jsonb not null,
  state text not null default 'waiting' check (state in ('waiting', 'delivered', 'dead')),
  tries integer not null default 0,
  due_at timestamptz not null default clock_timestamp(),
  last_status integer,
  last_error text,
  created_at timestamptz not null default clock_timestamp(),
  delivered_at timestamptz,
  unique (webhook_id, source)
);

create index webhook_delivery_due on webhook_delivery (due_at) where state = 'waiting';
create index webhook_delivery_listed on webhook_delivery (webhook_id, id desc);

-- Money that is below its mark now, and was told as such: told again only once it has been above.
create table webhook_low_balance (
  webhook_id uuid not null references webhook,
  account_id uuid not null,
  told_at timestamptz not null default clock_timestamp(),
  primary key (webhook_id, account_id)
);

grant select, insert on webhook, webhook_delivery, webhook_low_balance to purser_app;
grant update (ended_at, seen_xid, seen_seq) on webhook to purser_app;
grant update (state, tries, due_at, last_status, last_error, delivered_at) on webhook_delivery to purser_app;
grant delete on webhook_low_balance to purser_app;
