-- Deposits above an amount wait until another operator approves them; no money moves before that.

create table deposit_request (
  id uuid primary key,
  project_id uuid not null references project,
  wallet_id uuid not null references wallet,
  balance_class text not null check (balance_class in ('direct', 'credit')),
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  amount bigint not null check (amount > 0),
  reference text not null,
  lot jsonb,
  -- Null: a payment provider.
  asked_by uuid references api_key,
  state text not null default 'waiting' check (state in ('waiting', 'approved', 'refused')),
  decided_by uuid references api_key,
  decided_at timestamptz,
  transfer_id uuid,
  created_at timestamptz not null default clock_timestamp(),
  unique (project_id, reference),
  check ((state = 'waiting') = (decided_at is null)),
  check ((state = 'approved') = (transfer_id is not null)),
  check (decided_by is null or decided_by is distinct from asked_by)
);

create index deposit_request_waiting on deposit_request (project_id, id) where state = 'waiting';

-- A decision is for good.
create function keep_decision() returns trigger language plpgsql as $$
begin
  if old.state <> 'waiting' then
    raise exception 'deposit request % is decided', old.id using errcode = 'restrict_violation';
  end if;
  return new;
end
$$;
create trigger deposit_request_is_decided_once before update on deposit_request
  for each row execute function keep_decision();

grant select, insert on deposit_request to purser_app;
grant update (state, decided_by, decided_at, transfer_id) on deposit_request to purser_app;
revoke execute on function keep_decision from public;
