-- Who asks: organisation > project > API key. Every other table carries the project as its tenant; the tables of this
-- file that carry none (instance, catalog, price) belong to the installation.

create table organisation (
  id uuid primary key,
  name text not null,
  created_at timestamptz not null default clock_timestamp()
);

create table project (
  id uuid primary key,
  organisation_id uuid not null references organisation,
  name text not null,
  created_at timestamptz not null default clock_timestamp(),
  unique (organisation_id, name)
);

-- A key without a project is an operator key of its organisation. Only the SHA-256 of the secret is kept: the secret
-- has 256 random bits, so a slow hash would add nothing.
create table api_key (
  id uuid primary key,
  organisation_id uuid not null references organisation,
  project_id uuid references project,
  name text not null,
  hint text not null,
  hash bytea not null unique,
  created_at timestamptz not null default clock_timestamp(),
  revoked_at timestamptz
);

-- The answer given to a POST, written in the transaction of its effect. `scope` is a project or an organisation.
create table idempotency (
  scope uuid not null,
  key text not null,
  digest bytea not null,
  status integer not null,
  body jsonb not null,
  created_at timestamptz not null default clock_timestamp(),
  primary key (scope, key)
);

-- One row per process, with a lease on the database's clock. Who finds an attempt of a dead lease may take it over.
create table instance (
  id uuid primary key,
  kind text not null,
  host text not null,
  pid integer not null,
  started_at timestamptz not null default clock_timestamp(),
  lease_until timestamptz not null
);

create table catalog (
  version integer primary key generated always as identity,
  digest bytea not null,
  document jsonb not null,
  created_at timestamptz not null default clock_timestamp()
);

-- The price book: what a provider bills, in nano of its currency. Rows never change; the newest effective row is in force.
create table price (
  id uuid primary key,
  provider text not null,
  upstream_model text not null,
  currency text not null,
  input_nano_per_million bigint not null check (input_nano_per_million >= 0),
  cached_input_nano_per_million bigint not null check (cached_input_nano_per_million >= 0),
  output_nano_per_million bigint not null check (output_nano_per_million >= 0),
  per_call_nano bigint not null check (per_call_nano >= 0),
  effective_at timestamptz not null default clock_timestamp()
);

create index price_by_model on price (provider, upstream_model, currency, effective_at desc);

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% is append-only: % is refused', tg_table_name, tg_op using errcode = 'restrict_violation';
end
$$;

create trigger price_is_append_only before update or delete on price for each row execute function refuse_change();
create trigger price_keeps_its_rows before truncate on price for each statement execute function refuse_change();
create trigger catalog_is_append_only before update or delete on catalog for each row execute function refuse_change();
create trigger catalog_keeps_its_rows before truncate on catalog for each statement execute function refuse_change();

grant select, insert on organisation, project, idempotency, catalog, price to purser_app;
grant select, insert on api_key, instance to purser_app;
grant update (revoked_at) on api_key to purser_app;
grant update (lease_until) on instance to purser_app;
