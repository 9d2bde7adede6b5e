import { sql } from 'kysely'
import { epochOf, type TableCheck } from './verify-table.ts'

/** Keys of one statement where each row is looked up in other tables. */
const JOINED_PIECE = 10_000

/** Whether a carving paid for what was spent already, whatever the child's cap: its commit books that too. */
export const paysForTruth = sql<boolean>`exists (
  select from transfer truth where truth.xid = t.xid and truth.code in ('overage', 'correction'))`

/** Envelopes and accounts: whose they are, and what state they are in. */
export const envelopeChecks: readonly TableCheck[] = [
  {
    name: 'envelopes',
    claim:
      'a closed envelope is empty, a final run has closed its envelope, a child run has one below its parent run, and pockets have the gate of their envelope',
    table: 'envelope',
    key: 'id',
    alias: 'e',
    pieceRows: JOINED_PIECE,
    movedBy: 'envelope_id',
    rows: (piece, join) => sql`
      select 'envelope ' || e.id as name, ${epochOf(sql`e.created_at`)} as place,
        case
          when p.gate <> e.gate then 'is ' || e.gate || ', a pocket is ' || p.gate
          when e.gate = 'closed' and p.posted_credit - p.posted_debit <> 0 then 'is closed and not empty'
          when e.gate = 'closed' and p.pending_debit <> 0 then 'is closed with an open hold'
          when e.gate = 'closed' and exists (
            select from envelope c where c.parent_id = e.id and c.gate <> 'closed'
          ) then 'is closed, and a child of it is not'
          when r.finished_at is not null and e.gate <> 'closed' then 'its run is over and it is ' || e.gate
          when (e.gate = 'closed') <> (e.closed_at is not null) then 'is ' || e.gate || ', and its end is not'
          when e.closed_at < l.recorded_at - clock_tolerance() then 'was closed before its last movement'
          when o.id is null then 'its project is missing'
          when w.project_id is distinct from e.project_id then 'its wallet is missing, or of another project'
          when e.parent_id is not null and (u.project_id, u.wallet_id, u.api_key_id) is distinct from
            (e.project_id, e.wallet_id, e.api_key_id) then 'its parent is missing, or of another project, wallet or key'
          when r.id is not null and (r.project_id, r.api_key_id, r.id) is distinct from
            (e.project_id, e.api_key_id, e.run_id) then 'its run is of another key or project'
          when r.id is not null and r.parent_run_id is distinct from u.run_id then
            'its run is a child of another run than its parent envelope''s'
          when not e.subjects @> array_remove(array[o.organisation_id, e.project_id, e.api_key_id, e.run_id], null)
            or not e.subjects @> coalesce(u.subjects, '{}') then 'its calls do not count for all they are of'
        end as wrong
      from envelope e
      left join account p on p.kind = 'pocket' and p.envelope_id = e.id
      left join run r on r.envelope_id = e.id
      ${join('project', 'o', sql`o.id = e.project_id`)}
      ${join('wallet', 'w', sql`w.id = e.wallet_id`)}
      ${join('envelope', 'u', sql`u.id = e.parent_id`)}
      left join lateral (
        select t.recorded_at from transfer t
        where e.closed_at is not null and t.envelope_id = e.id and t.code <> 'correction' and not exists (
          select from transfer late where late.xid = t.xid and late.code = 'correction'
        ) order by t.seq desc limit 1
      ) l on true
      where ${piece}`,
  },
  {
    name: 'accounts',
    claim: 'every account is of a wallet or an envelope of its project, and a pocket was given what was carved for it',
    table: 'account',
    key: 'id',
    alias: 'a',
    pieceRows: JOINED_PIECE,
    movedBy: null,
    rows: (piece, join) => sql`
      select 'account ' || a.id as name, ${epochOf(sql`a.created_at`)} as place,
        case
          when (a.kind = 'wallet') <> (a.wallet_id is not null) or (a.kind = 'pocket') <> (a.envelope_id is not null)
            or (a.kind in ('wallet', 'pocket')) <> (coalesce(a.balance_class, '') in ('direct', 'credit')) then
            'is a ' || a.kind || ' and belongs to something else'
          when a.kind = 'wallet' and w.project_id is distinct from a.project_id then
            'its wallet is missing, or of another project'
          when a.kind = 'pocket' and e.project_id is distinct from a.project_id then
            'its envelope is missing, or of another project'
          when a.kind = 'wallet' and a.gate <> 'open' then 'is ' || a.gate
          when a.pending_credit <> 0 then 'is to be given ' || a.pending_credit
          when a.kind not in ('wallet', 'pocket') and (a.posted_debit, a.posted_credit, a.pending_debit, a.version)
            <> (0, 0, 0, 0) then 'keeps a balance'
          when v.asked > a.cap then 'was given ' || v.asked || ', its cap is ' || a.cap
          when a.carved <> least(a.cap, v.carved) then
            'says it was given ' || a.carved || ', and was given ' || v.carved
          when v.class <> a.balance_class then 'was given money of another balance'
        end as wrong
      from account a
      ${join('wallet', 'w', sql`w.id = a.wallet_id`)}
      ${join('envelope', 'e', sql`e.id = a.envelope_id`)}
      cross join lateral (
        select coalesce(sum(t.amount), 0) as carved, min(d.balance_class) as class,
          sum(t.amount) filter (where a.cap is not null and not ${paysForTruth}) as asked
        from transfer t join account d on d.id = t.debit_account
        where t.code = 'carve' and t.credit_account = a.id and (e.parent_id is not null or a.carved <> 0)
      ) v
      where ${piece}`,
  },
]
