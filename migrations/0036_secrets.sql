-- Secrets that have to be read again stand here encrypted, by keys that are outside the database; and providers that
-- operators add. Which key encrypted what is beside it, so that another one can take over.

-- Null: in clear, as it was before there was a key; the first process with a key encrypts it.
alter table webhook add column encrypted_by text;
create index webhook_encrypted_by on webhook (encrypted_by, id);
grant update (secret, encrypted_by) on webhook to purser_app;

-- Which key a process encrypts with; null: it has none. What another key encrypted is encrypted again once all agree.
alter table instance add column encrypts_with text;

create sequence provider_version;

-- Of the installation, as the catalog whose routes name them: a project has none.
create table provider (
  name text primary key check (length(name) between 1 and 100),
  kind text not null check (kind in ('openai', 'anthropic', 'openrouter')),
  base_url text not null,
  max_tokens_field text check (max_tokens_field in ('max_tokens', 'max_completion_tokens')),
  prompt_cache boolean,
  -- Bound to name and base_url: beside another address it is not read.
  api_key bytea not null,
  encrypted_by text not null,
  -- Its end, for people; of a short key nothing.
  key_hint text not null,
  key_changed_at timestamptz not null default clock_timestamp(),
  -- Another with each change of what is configured: processes look for it. A new encryption is none.
  version bigint not null default nextval('provider_version'),
  created_at timestamptz not null default clock_timestamp(),
  changed_at timestamptz not null default clock_timestamp()
);

grant usage on sequence provider_version to purser_app;
grant select, insert, delete on provider to purser_app;
grant update (kind, base_url, max_tokens_field, prompt_cache, api_key, encrypted_by, key_hint, key_changed_at, version,
  changed_at) on provider to purser_app;

-- Operators of any organisation see and change them, projects do not.
call tenant.confine('provider', '(select tenant.organisation()) is not null and (select tenant.project()) is null');
grant usage on sequence provider_version to purser_tenant;

-- Of all tenants: an operator is told how many secrets a key encrypts, and of none whose it is.
create function secret_counts() returns table (encrypted_by text, secrets integer)
language sql stable security definer set search_path = public, pg_temp as $$
  select s.encrypted_by, count(*)::integer
  from (select w.encrypted_by from webhook w union all select p.encrypted_by from provider p) s
  group by s.encrypted_by order by s.encrypted_by nulls first
$$;
revoke execute on function secret_counts from public;
grant execute on function secret_counts to purser_app;
call tenant.guard('secret_counts()', 'check_operator(tenant.organisation())');
