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

/**
 * A run's ledger entries in order, each with the money it belongs to: the journal that its report is folded from. What a
 * wallet paid into an exchange, or got back from it, is not the run's: its pocket saw what came out of the exchange. Nor is
 * what moved between the run's own envelopes; what it carved for child runs is.
 */
export async function readRunJournal(db: Kysely<Database>, scope: Scope, runId: string): Promise<readonly RunEntry[]> {
  const { rows } = await sql<RunEntry>`
    with own as materialized (
      select e.id from envelope e where e.run_id = ${runId} and e.project_id = ${scope.projectId}
    ), mine as materialized (
      select a.id from account a where a.kind = 'pocket' and a.envelope_id in (select id from own)
    ), moved as (
      select t.* from transfer t where t.envelope_id in (select id from own)
      union all
      select t.* from mine join transfer t on t.debit_account = mine.id and t.code = 'carve'
      where t.envelope_id not in (select id from own)
      union all
      select t.* from mine join transfer t on t.credit_account = mine.id and t.code = 'return'
      where t.envelope_id not in (select id from own)
    )
    select t.id, t.code, t.amount, t.released, t.call_id as "callId", t.attempt, t.certainty, t.use, t.currency,
      coalesce(paying.balance_class, debit.balance_class, credit.balance_class) as "balanceClass",
      coalesce(paying.balance_class, debit.balance_class, credit.balance_class) || ' ' || t.currency as money,
      case when credit.kind = 'provider_cost' or t.code in ('return', 'carve') and debit.id in (select id from mine)
        then 'out' else 'in' end as direction,
      debit.kind = 'pocket' or credit.kind = 'pocket' as "viaPocket",
      ${recordedAtText} as "recordedAt"
    from moved t
    join account debit on debit.id = t.debit_account
    join account credit on credit.id = t.credit_account
    left join attempt a on a.call_id = t.call_id and a.number = t.attempt
    left join account paying on paying.id = a.account_id
    where (t.code not in ('top_up', 'return') or 'pocket' in (debit.kind, credit.kind))
      and not (debit.id in (select id from mine) and credit.id in (select id from mine))
    order by t.seq`.execute(db)
  return rows
}
