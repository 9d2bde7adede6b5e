import { sql, type Kysely, type RawBuilder } from 'kysely'
import type { JournalRange } from './journal-range.ts'
import type { Finding } from './verify-check.ts'
import { firstWrongIn } from './verify-first.ts'
import { byKey } from './verify-lookup.ts'
import type { Database } from './schema.ts'

/** Rows of one statement. Those of calls are passed over: their attempts are looked at one by one. */
const PIECE_ROWS = 50_000

/** What movements outside of calls name: envelopes, lots, quotes, deposits; and exchanges are computed again. */
export async function compareFundings(
  db: Kysely<Database>,
  { range, rows }: { readonly range: JournalRange; readonly rows: number },
): Promise<Finding> {
  const firstWrong = await firstWrongIn(db, { range, pieceRows: PIECE_ROWS, rows: wrongFundings })
  return { rows, firstWrong }
}

function wrongFundings(piece: RawBuilder<boolean>): RawBuilder<unknown> {
  return sql`
    select 'transfer ' || t.id as name, t.xid, t.seq,
      case
        -- What had expired of a deposit is reversed from where it expired to, past its lot's account.
        when t.lot_id is not null and (l.id is null or l.project_id <> t.project_id
          or l.account_id not in (t.debit_account, t.credit_account) and t.code <> 'reversal') then
          'its lot is missing, or of another account'
        when t.code in ('top_up', 'return', 'carve') then case
          when e.project_id is distinct from t.project_id or e.run_id is distinct from t.run_id then
            'its envelope is missing, or of another run or project'
          when p.id is not null and p.envelope_id is distinct from t.envelope_id then 'is of another envelope'
          when w.id is not null and w.wallet_id is distinct from e.wallet_id then 'is of another wallet'
          when (t.quote_id is not null) <> ('exchange' in (d.kind, c.kind)) then
            case when t.quote_id is null then 'is exchanged without a quote' else 'names a quote, and exchanges nothing' end
          when t.quote_id is null then null
          when q.id is null then 'its quote is missing'
          when t.currency <> case when w.id is null then q.buy_currency else q.sell_currency end then
            'is in a currency that its quote does not have there'
          when t.code = 'top_up' and w.id is null and not (
            x.out * q.sell <= x.home * q.buy and (x.out + x.times) * q.sell > x.home * q.buy
          ) then 'bought ' || x.out || ' for ' || x.home || ', at a rate of ' || q.buy || ' for ' || q.sell
          when t.code = 'top_up' and w.id is not null and x.times = 0 then 'was sold, and nothing was bought'
          -- What rounding has left of earlier returns comes back with the last one.
          when t.code = 'return' and w.id is null and not (
            (x.home + x.times) * q.buy >= x.out * q.sell
            and (x.home - x.earlier) * q.buy <= (x.out + x.times) * q.sell
          ) then 'gave ' || x.home || ' back for ' || x.out || ', at a rate of ' || q.buy || ' for ' || q.sell
        end
        when t.code in ('deposit', 'refund') and t.reference is null then 'has no reference'
        when t.code = 'reversal' and r.id is null then 'takes back a deposit that is not there'
        when t.code in ('overage', 'correction') and t.call_id is not null then case
          when a.hold_id is null then 'its attempt is missing'
          when t.certainty is null or t.use is null then 'has no labels'
        end
      end as wrong
    from (
      select * from transfer t where ${piece} and t.code not in ('hold', 'capture', 'void', 'expire') offset 0
    ) t
    ${byKey('account', 'd', sql`d.id = t.debit_account`)}
    ${byKey('account', 'c', sql`c.id = t.credit_account`)}
    ${byKey('account', 'w', sql`w.id = case 'wallet' when d.kind then d.id when c.kind then c.id end`)}
    ${byKey('account', 'p', sql`p.id = case t.code when 'return' then d.id else c.id end and p.kind = 'pocket'`)}
    ${byKey('envelope', 'e', sql`e.id = t.envelope_id`)}
    ${byKey('quote', 'q', sql`q.id = t.quote_id`)}
    ${byKey('lot', 'l', sql`l.id = t.lot_id`)}
    ${byKey('transfer', 'r', sql`r.id = t.reverses and r.code = 'deposit' and r.project_id = t.project_id`)}
    ${byKey('attempt', 'a', sql`a.call_id = t.call_id and a.number = t.attempt`)}
    left join lateral (
      select coalesce(sum(o.amount) filter (where 'wallet' not in (k.kind, g.kind) and o.xid = t.xid), 0) as out,
        coalesce(sum(o.amount) filter (where 'wallet' in (k.kind, g.kind) and o.xid = t.xid), 0) as home,
        count(*) filter (where 'wallet' not in (k.kind, g.kind) and o.xid = t.xid) as times,
        count(*) filter (where 'wallet' not in (k.kind, g.kind)) as earlier
      from transfer o join account k on k.id = o.debit_account join account g on g.id = o.credit_account
      where o.envelope_id = t.envelope_id and o.code in ('top_up', 'return') and o.code = t.code
        and o.quote_id = t.quote_id
    ) x on t.quote_id is not null`
}
