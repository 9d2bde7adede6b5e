import type { BalanceClass } from '#contracts/names.ts'
import { planSchema, usageSchema } from '#contracts/stored.ts'
import { NO_USAGE, type Usage } from '#domain/pricing.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

/** What a call cost so far, and what answered it. */
export interface CallReceipt {
  readonly route: string
  readonly balanceClass: BalanceClass
  readonly currency: string
  /** Of all its attempts that this pocket's money paid, in nano. */
  readonly charged: bigint
  /** Of the attempt that gave the answer; null when its provider reported none. */
  readonly usage: Usage | null
  readonly attempts: number
  readonly accountId: string
  readonly answeredAt: Date
}

interface Row {
  readonly number: number
  readonly plan: unknown
  readonly usage: unknown
  readonly accountId: string
  readonly charged: bigint
  readonly resolvedAt: Date
}

/** The receipt of an answered call; undefined when it was answered without a request of its own. */
export async function callReceipt(
  db: Kysely<Database>,
  scope: Scope,
  callId: string,
): Promise<CallReceipt | undefined> {
  const { rows } = await sql<Row>`
    select a.number, a.plan, a.usage, a.account_id as "accountId", a.resolved_at as "resolvedAt",
      (coalesce(c.amount, 0) + coalesce((
        select sum(case when k.kind = 'provider_cost' then t.amount else -t.amount end)
        from transfer t join account k on k.id = t.credit_account
        where t.call_id = a.call_id and t.attempt = a.number and t.code in ('overage', 'correction')
      ), 0))::bigint as charged
    from attempt a left join transfer c on c.pending_id = a.hold_id
    where a.call_id = ${callId} and a.project_id = ${scope.projectId} and a.state = 'resolved'
    order by a.number`.execute(db)
  const last = rows.at(-1)
  if (!last) return undefined
  const { route, balanceClass, currency } = planSchema.parse(last.plan)
  const usage = usageSchema.parse(last.usage)
  return {
    route,
    balanceClass,
    currency,
    charged: rows.filter(({ accountId }) => accountId === last.accountId).reduce((sum, each) => sum + each.charged, 0n),
    usage: usage ? { ...NO_USAGE, ...usage } : null,
    attempts: rows.length,
    accountId: last.accountId,
    answeredAt: last.resolvedAt,
  }
}
