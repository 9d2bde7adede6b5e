-- What operators' keys have booked without a second one, where an installation has a bound for that: it is added up over a
-- day, so that a deposit above the bound is not made in parts.
create table lone_deposit (
  deposit_id uuid primary key,
  organisation_id uuid not null references organisation,
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  amount bigint not null check (amount > 0),
  made_at timestamptz not null default clock_timestamp()
);
create index lone_deposit_of_day on lone_deposit (organisation_id, currency, made_at);

grant select, insert, delete on lone_deposit to purser_app;
call tenant.confine('lone_deposit',
  'organisation_id = (select tenant.organisation()) and (select tenant.project()) is null');

-- Why it waits: it is above the bound by itself, or together with what was booked alone within a day.
alter table deposit_request
  add column reason text not null default 'amount' check (reason in ('amount', 'day'));
