import { sql, type Kysely, type RawBuilder } from 'kysely'
import type { Scope } from './database.ts'
import { recordedAtText } from './instant.ts'
import type { RunEntry } from './journal.ts'
import type { Database } from './schema.ts'

/**
 * The ledger entries of calls in order, whichever envelope they are of, each with the money it belongs to. All in one
 * statement: of a call there are few.
 */
export async function readCallJournal(
  db: Kysely<Database>,
  scope: Scope,
  callIds: readonly string[],
): Promise<readonly RunEntry[]> {
  const { rows } = await sql<RunEntry>`
    select t.id, t.code, t.amount, t.released, t.call_id as "callId", t.attempt, t.certainty, t.use, t.currency,
      coalesce(paying.balance_class, debit.balance_class, credit.balance_class) as "balanceClass",
      coalesce(paying.balance_class, debit.balance_class, credit.balance_class) || ' ' || t.currency as money,
      case when credit.kind = 'provider_cost' then 'out' else 'in' end as direction,
      debit.kind = 'pocket' or credit.kind = 'pocket' as "viaPocket",
      ${recordedAtText} as "recordedAt"
    from (${transfersOfCalls(scope, callIds)}) t
    join account debit on debit.id = t.debit_account
    join account credit on credit.id = t.credit_account
    left join attempt a on a.call_id = t.call_id and a.number = t.attempt
    left join account paying on paying.id = a.account_id
    order by t.seq`.execute(db)
  return rows
}

/**
 * The transfers of calls, through the holds of their attempts: an index of all transfers by call would be written with each
 * movement, and read now and then.
 */
export function transfersOfCalls(scope: Scope, callIds: readonly string[]): RawBuilder<unknown> {
  const ids = [...callIds]
  return sql`
    select t.* from attempt a join transfer t on t.id = a.hold_id
      where a.call_id = any(${ids}::uuid[]) and a.project_id = ${scope.projectId}
    union all
    select t.* from attempt a join transfer t on t.pending_id = a.hold_id
      where a.call_id = any(${ids}::uuid[]) and a.project_id = ${scope.projectId}
    union all
    select t.* from transfer t
      where t.call_id = any(${ids}::uuid[]) and t.code in ('overage', 'correction') and t.project_id = ${scope.projectId}`
}
