import type { TransferCode } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'
import type { StatementPeriod } from './statement-period.ts'

/** What a project owed for overages that nothing covered. In nano; positive is owed. */
export interface StatementDebt {
  readonly accountId: string
  readonly currency: string
  readonly opening: bigint
  readonly changes: readonly { readonly code: TransferCode; readonly amount: bigint; readonly count: number }[]
  readonly closing: bigint
}

interface Row {
  readonly accountId: string
  readonly currency: string
  readonly code: TransferCode
  readonly before: bigint
  readonly amount: bigint
  readonly count: number
}

/** The debts of a project over a period; those that were never there are left out. */
export async function debtsOver(
  db: Kysely<Database>,
  scope: Scope,
  period: StatementPeriod,
): Promise<readonly StatementDebt[]> {
  const { rows } = await sql<Row>`
    select o.id as "accountId", o.currency, t.code,
      coalesce(sum(t.amount) filter (where t.recorded_at < ${period.from}::timestamptz), 0)::bigint as before,
      coalesce(sum(t.amount) filter (where t.recorded_at >= ${period.from}::timestamptz), 0)::bigint as amount,
      (count(*) filter (where t.recorded_at >= ${period.from}::timestamptz))::integer as count
    from account o
    cross join lateral (
      select t.code, case when t.debit_account = o.id then t.amount else -t.amount end as amount, t.recorded_at
      from transfer t
      where t.project_id = o.project_id and t.currency = o.currency
        and t.code in ('overage', 'debt_payment', 'correction') and o.id in (t.debit_account, t.credit_account)
      union all
      select t.code, t.amount, t.recorded_at from transfer t where t.debit_account = o.id and t.code = 'reversal'
        and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve')
    ) t
    where o.project_id = ${scope.projectId} and o.kind = 'overage' and t.recorded_at <= ${period.closedAt}::timestamptz
    group by 1, 2, 3 order by 2, 3`.execute(db)
  return [...Map.groupBy(rows, (row) => row.accountId).values()].flatMap((ofAccount) => {
    const [first] = ofAccount
    if (!first) return []
    const opening = ofAccount.reduce((sum, row) => sum + row.before, 0n)
    const changes = ofAccount.filter((row) => row.count > 0)
    if (opening === 0n && changes.length === 0) return []
    return {
      accountId: first.accountId,
      currency: first.currency,
      opening,
      changes: changes.map(({ code, amount, count }) => ({ code, amount, count })),
      closing: changes.reduce((sum, row) => sum + row.amount, opening),
    }
  })
}
