-- Sealed blocks: the journal in (xid, seq) order, cut into blocks whose digests are chained. Whoever changes a row that is
-- sealed has to recompute every later block, and the heads that were signed and kept outside the database stay as they were.

create table seal (
  height bigint primary key check (height > 0),
  -- Which columns the digest covers, and how they are written: see src/db/seal-block.ts.
  format smallint not null,
  first_xid xid8 not null,
  first_seq bigint not null,
  last_xid xid8 not null,
  last_seq bigint not null,
  count integer not null check (count > 0),
  digest bytea not null check (length(digest) = 32),
  -- Over what the journal rests on: prices, quotes, terms and owners that were written up to the block's last transaction.
  terms bytea not null check (length(terms) = 32),
  previous bytea not null check (length(previous) = 32),
  hash bytea not null check (length(hash) = 32),
  sealed_at timestamptz not null,
  key_id text,
  signature bytea,
  check ((key_id is null) = (signature is null)),
  check ((first_xid, first_seq) <= (last_xid, last_seq))
);

create trigger seal_is_append_only before update or delete on seal for each row execute function refuse_change();
create trigger seal_keeps_its_rows before truncate on seal for each statement execute function refuse_change();

-- What the journal rests on and what never changes of it is sealed with it, by the transaction that wrote it: it comes into
-- the first block that ends with that transaction or a later one. Rows that are older than this migration come into the
-- first block after it.
do $$
declare
  v_table text;
begin
  foreach v_table in array array['price', 'catalog', 'quote', 'wallet', 'envelope', 'account', 'lot', 'usage_limit',
    'limit_change']
  loop
    execute format('alter table %I add column made_in xid8 not null default pg_current_xact_id()', v_table);
    execute format('create index %I on %I (made_in)', v_table || '_in_order', v_table);
  end loop;
end
$$;

-- Who may insert a row directly does not say in which transaction.
revoke insert on wallet from purser_app;
grant insert (id, project_id) on wallet to purser_app;

create index seal_signed on seal (height) where signature is not null;

-- Appends a block to the chain, one at a time. What it says of its rows is counted again, and they are over: a block that
-- named rows which are not there, or places that are still to come, would keep every other from being sealed. Its digest
-- and its signature are looked at by `verify`, and by the next sealer before it builds on them.
create function append_seal(p_block jsonb) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  v_head seal;
  v_new seal;
  v_rows record;
begin
  perform pg_advisory_xact_lock(7235001);
  select * into v_head from seal order by height desc limit 1;
  select * into v_new from jsonb_populate_record(null::seal, p_block);
  if v_new.height <> coalesce(v_head.height, 0) + 1
    or v_new.previous <> coalesce(v_head.hash, decode(repeat('00', 32), 'hex'))
    or (v_new.first_xid, v_new.first_seq) <= (v_head.last_xid, v_head.last_seq) then
    raise exception 'block % does not follow the head of the chain', v_new.height using errcode = 'check_violation';
  end if;
  if v_head.signature is not null and v_new.signature is null then
    raise exception 'block % is not signed, and the one before it is', v_new.height using errcode = 'check_violation';
  end if;
  if v_new.last_xid >= pg_snapshot_xmin(pg_current_snapshot()) then
    raise exception 'block % names transactions that are not over', v_new.height using errcode = 'check_violation';
  end if;
  select count(*) as count,
    (array_agg(row(t.xid, t.seq) order by t.xid, t.seq))[1] as first,
    (array_agg(row(t.xid, t.seq) order by t.xid desc, t.seq desc))[1] as last
    into v_rows
  from (
    select t.xid, t.seq from transfer t
    where (t.xid, t.seq) > (coalesce(v_head.last_xid, '0'::xid8), coalesce(v_head.last_seq, 0))
      and (t.xid, t.seq) <= (v_new.last_xid, v_new.last_seq)
    order by t.xid, t.seq limit 100000
  ) t;
  if v_rows.count <> v_new.count or v_rows.first <> row(v_new.first_xid, v_new.first_seq)
    or v_rows.last <> row(v_new.last_xid, v_new.last_seq) then
    raise exception 'block % has other rows than the journal', v_new.height using errcode = 'check_violation';
  end if;
  insert into seal select v_new.*;
end
$$;

grant select on seal to purser_app;
grant execute on function append_seal to purser_app;
revoke execute on function append_seal from public;
