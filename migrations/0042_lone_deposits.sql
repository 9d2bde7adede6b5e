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

create index lone_deposit_by_age on lone_deposit (made_at);

-- Of a day that is over: they are added up no more.
create function purge_lone_deposits(p_age interval, p_most integer) returns integer
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_rows integer;
begin
  delete from lone_deposit where deposit_id in (
    select d.deposit_id from lone_deposit d where d.made_at < clock_timestamp() - kept_at_least(p_age)
    order by d.made_at limit p_most for update skip locked);
  get diagnostics v_rows = row_count;
  return v_rows;
end
$$;

grant select, insert on lone_deposit to purser_app;
revoke execute on function purge_lone_deposits from public;
grant execute on function purge_lone_deposits to purser_app;
call tenant.confine('lone_deposit',
  'organisation_id = (select tenant.organisation()) and (select tenant.project()) is null');

-- Why it waits: it is above the bound by itself, or together with what was booked alone within a day.
alter table deposit_request
  add column reason text not null default 'amount' check (reason in ('amount', 'day'));
