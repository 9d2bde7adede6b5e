import type { JournalEntry } from '#domain/journal.ts'
import type { BalanceClass } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

export interface RunEntry extends JournalEntry {
  readonly balanceClass: BalanceClass
  readonly currency: string
  /** False for what passed the pocket by: a debt, or a correction after the close. */
  readonly viaPocket: boolean
}

/** A run's ledger entries in order, each with the money it belongs to: the journal that its report is folded from. */
export async function readRunJournal(db: Kysely<Database>, scope: Scope, runId: string): Promise<readonly RunEntry[]> {
  const { rows } = await sql<RunEntry>`
    select t.id, t.code, t.amount, t.released, t.call_id as "callId", t.attempt, t.certainty, t.use, t.currency,
      coalesce(paying.balance_class, debit.balance_class, credit.balance_class) as "balanceClass",
      coalesce(paying.balance_class, debit.balance_class, credit.balance_class) || ' ' || t.currency as money,
      case when credit.kind = 'provider_cost' or t.code = 'return' then 'out' else 'in' end as direction,
      debit.kind = 'pocket' or credit.kind = 'pocket' as "viaPocket"
    from transfer t
    join account debit on debit.id = t.debit_account
    join account credit on credit.id = t.credit_account
    left join attempt a on a.call_id = t.call_id and a.number = t.attempt
    left join account paying on paying.id = a.account_id
    where t.run_id = ${runId} and t.project_id = ${scope.projectId}
    order by t.seq`.execute(db)
  return rows
}
