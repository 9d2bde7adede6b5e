import type { JournalEntry } from '#domain/journal.ts'
import type { BalanceClass } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import { recordedAtText } from './instant.ts'
import type { Database } from './schema.ts'

export interface RunEntry extends JournalEntry {
  readonly balanceClass: BalanceClass
  readonly currency: string
  /** False for what passed the pocket by: a debt, and what corrections after the close once moved. */
  readonly viaPocket: boolean
  /** In microseconds, as an `Instant` is written. */
  readonly recordedAt: string
}

/** Movements of one read: some tenths of a second. */
const PAGE = 20_000

/**
 * Which transactions were over at one moment. A journal that is read in many short statements is that of the moment, as if
 * it had been read at once: rows are never changed, and what came since is left out.
 */
export async function readSnapshot(db: Kysely<Database>): Promise<string> {
  const { rows } = await sql<{ snapshot: string }>`select pg_current_snapshot()::text as snapshot`.execute(db)
  return rows[0]?.snapshot ?? ''
}

/**
 * A run's ledger entries in order, each with the money it belongs to: the journal that its report is folded from. What a
 * wallet paid into an exchange, or got back from it, is not the run's: its pocket saw what came out of the exchange. Nor is
 * what moved between the run's own envelopes; what it carved for child runs is. In as many reads as it takes.
 */
export async function readRunJournal(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly runId: string; readonly snapshot: string },
): Promise<readonly RunEntry[]> {
  const entries: RunEntry[] = []
  let after = 0n
  for (;;) {
    const { rows } = await readPage(db, scope, { ...request, after })
    for (const row of rows) if (row.isShown) entries.push(row)
    const last = rows.at(-1)
    if (!last || rows.length < PAGE) return entries
    after = last.seq
  }
}

interface Row extends RunEntry {
  readonly seq: bigint
  readonly isShown: boolean
}

function readPage(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly runId: string; readonly snapshot: string; readonly after: bigint },
) {
  const { runId, snapshot, after } = request
  const isNext = sql`t.seq > ${after} and pg_visible_in_snapshot(t.xid, ${snapshot}::text::pg_snapshot)`
  return sql<Row>`
    with own as materialized (
      select e.id from envelope e where e.run_id = ${runId} and e.project_id = ${scope.projectId}
    ), mine as materialized (
      select a.id from account a where a.kind = 'pocket' and a.envelope_id in (select id from own)
    ), moved as materialized (
      select m.id, m.seq, m.code, m.amount, m.released, m.call_id, m.attempt, m.certainty, m.use, m.currency,
        m.recorded_at, m.debit_account, m.credit_account
      from (
        select t.* from own cross join lateral (
          select * from transfer t where t.envelope_id = own.id and ${isNext} order by t.seq limit ${PAGE}
        ) t
        union all
        select t.* from mine cross join lateral (
          select * from transfer t where t.debit_account = mine.id and t.code = 'carve' and ${isNext}
            and t.envelope_id not in (select id from own) order by t.seq limit ${PAGE}
        ) t
        union all
        select t.* from mine cross join lateral (
          select * from transfer t where t.credit_account = mine.id and t.code = 'return' and ${isNext}
            and t.envelope_id not in (select id from own) order by t.seq limit ${PAGE}
        ) t
      ) m order by m.seq limit ${PAGE}
    )
    select t.id, t.code, t.amount, t.released, t.call_id as "callId", t.attempt, t.certainty, t.use, t.currency, t.seq,
      coalesce(paying.balance_class, debit.balance_class, credit.balance_class) as "balanceClass",
      coalesce(paying.balance_class, debit.balance_class, credit.balance_class) || ' ' || t.currency as money,
      case when credit.kind = 'provider_cost' or t.code in ('return', 'carve') and debit.id in (select id from mine)
        then 'out' else 'in' end as direction,
      debit.kind = 'pocket' or credit.kind = 'pocket' as "viaPocket",
      ${recordedAtText} as "recordedAt",
      (t.code not in ('top_up', 'return') or 'pocket' in (debit.kind, credit.kind))
        and not (debit.id in (select id from mine) and credit.id in (select id from mine)) as "isShown"
    from moved t
    join account debit on debit.id = t.debit_account
    join account credit on credit.id = t.credit_account
    -- Holds and their resolutions name the pocket that pays: only what was charged beyond them may pass it by, and
    -- nobody looks for the attempt of no call.
    left join attempt a on a.number = t.attempt
      and a.call_id = case when t.code not in ('hold', 'capture', 'void', 'expire') then t.call_id end
    left join account paying on paying.id = a.account_id
    order by t.seq`.execute(db)
}
