import { sql } from 'kysely'
import { epochOf, type TableCheck } from './verify-table.ts'

/** What lots have, and whose they are. */
export const lotChecks: readonly TableCheck[] = [
  {
    name: 'lots',
    claim: 'what a lot has free is what came into it less what went out, and the lots of a wallet are all its credit',
    table: 'account',
    key: 'id',
    alias: 'w',
    pieceRows: 200,
    movedBy: null,
    rows: (piece) => sql`
      with asked as materialized (
        select w.id, w.balance_class, w.version, w.posted_credit - w.posted_debit as balance,
          ${epochOf(sql`w.created_at`)} as place
        from account w where w.kind = 'wallet' and ${piece}
          and (w.balance_class is distinct from 'direct' or exists (select from lot l where l.account_id = w.id))
      ), folded as materialized (
        select l.id, l.account_id, l.free, l.opening + coalesce((
          select sum(case when t.credit_account = l.account_id then t.amount else -t.amount end)
          from transfer t where t.lot_id = l.id and l.account_id in (t.credit_account, t.debit_account)
        ), 0) as moved
        from asked w join lot l on l.account_id = w.id
      )
      select 'lot ' || f.id as name, w.place,
        case when f.free <> f.moved then 'has ' || f.free || ' free, its movements leave ' || f.moved end as wrong
      from folded f join asked w on w.id = f.account_id
      union all
      select 'account ' || w.id, w.place,
        case
          when w.balance <> coalesce(sum(f.free), 0) then
            'has ' || w.balance || ' of credit, its lots have ' || coalesce(sum(f.free), 0)
          when w.balance_class is distinct from 'credit' then 'has lots, and is not of credit'
          when count(f.id) = 0 and w.version > 0 then 'is of credit and has moved, and has no lot'
        end
      from asked w left join folded f on f.account_id = w.id
      group by w.id, w.balance_class, w.version, w.balance, w.place`,
  },
  {
    name: 'lot owners',
    claim: 'every lot is of a wallet account of its project',
    table: 'lot',
    key: 'id',
    alias: 'l',
    pieceRows: 10_000,
    movedBy: 'lot_id',
    rows: (piece, join) => sql`
      select 'lot ' || l.id as name, ${epochOf(sql`l.created_at`)} as place,
        case when w.id is null then 'its account is missing, or of another kind or project' end as wrong
      from lot l ${join('account', 'w', sql`w.id = l.account_id and w.kind = 'wallet' and w.project_id = l.project_id`)}
      where ${piece}`,
  },
]
