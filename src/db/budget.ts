import type { Budget } from '#contracts/activities.ts'
import type { BalanceClass } from '#contracts/names.ts'
import { formatNano } from '#domain/money.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import { runQuery } from './run.ts'
import type { Database } from './schema.ts'

interface Row {
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly funded: bigint
  readonly spent: bigint
  readonly held: bigint
  readonly free: bigint
}

/**
 * What a run has left, without its wrap-up reserve; with `wrapUp`, what that has left. What a child may still be given by the
 * pockets above it is free to it; what children of its own hold is neither spent nor free.
 */
export async function readBudget(
  db: Kysely<Database>,
  scope: Scope,
  { runId, wrapUp }: { readonly runId: string; readonly wrapUp?: true },
): Promise<Budget> {
  const run = await runQuery(db, scope, runId).executeTakeFirstOrThrow()
  const pays = sql<boolean>`e.project_id = ${scope.projectId} and ${
    wrapUp ? sql`e.parent_id = ${run.envelope_id} and e.kind = 'wrap_up'` : sql`e.id = ${run.envelope_id}`
  }`
  const { rows } = await sql<Row>`
    with recursive up(balance_class, currency, own, envelope_id, room, free) as (
      select a.balance_class, a.currency, a.id, a.envelope_id, a.cap - a.carved,
        a.posted_credit - a.posted_debit - a.pending_debit
      from envelope e join account a on a.kind = 'pocket' and a.envelope_id = e.id where ${pays}
      union all
      select u.balance_class, u.currency, u.own, p.envelope_id, least(u.room, p.cap - p.carved),
        least(u.room, p.posted_credit - p.posted_debit - p.pending_debit)
      from up u join envelope e on e.id = u.envelope_id
      join account p on p.kind = 'pocket' and p.envelope_id = e.parent_id and p.balance_class = u.balance_class
        and p.currency = u.currency
    ), free as (select own, sum(free)::bigint as free from up group by own)
    select a.balance_class as "balanceClass", a.currency, a.posted_credit as funded, a.pending_debit as held, f.free,
      coalesce((select sum(t.amount) from transfer t where t.debit_account = a.id
        and t.code in ('capture', 'overage', 'correction')), 0)::bigint as spent
    from free f join account a on a.id = f.own order by a.balance_class desc, a.currency`.execute(db)
  const { calls } = await db
    .selectFrom('call')
    .select((eb) => eb.fn.countAll<bigint>().as('calls'))
    .where('run_id', '=', runId)
    .executeTakeFirstOrThrow()
  return {
    pockets: rows.map(({ balanceClass, currency, funded, spent, held, free }) => ({
      balanceClass,
      currency,
      funded: formatNano(funded),
      spent: formatNano(spent),
      held: formatNano(held),
      free: formatNano(free),
    })),
    calls: Number(calls),
    downgraded: run.downgraded_at !== null,
  }
}
