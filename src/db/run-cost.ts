import type { BalanceClass } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

/** Completed runs that a range of costs is of: the last ones. */
const MOST_RUNS = 50
/** How far back they are looked for. */
const LOOK_BACK = 2_000

/** What runs of one kind cost, from one class and currency, in nano. */
export interface RunCosts {
  readonly runs: number
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly p10: bigint
  readonly p90: bigint
}

/** What the last completed runs of an agent and a model cost: what went into their envelopes and did not come home. */
export async function costsOfRuns(
  db: Kysely<Database>,
  scope: Scope,
  kind: { readonly agent: string; readonly model: string },
): Promise<readonly RunCosts[]> {
  const { rows } = await sql<RunCosts>`
    with recent as (
      select * from run where project_id = ${scope.projectId} order by id desc limit ${LOOK_BACK}
    ), completed as (
      select r.envelope_id from recent r
      where r.agent = ${kind.agent} and r.model = ${kind.model} and r.state = 'completed' and r.parent_run_id is null
      order by r.id desc limit ${MOST_RUNS}
    ), cost as (
      select a.balance_class, a.currency, t.cost
      from completed c
      join account a on a.kind = 'pocket' and a.envelope_id = c.envelope_id
      cross join lateral (
        select coalesce(sum(case when m.credit_account = a.id then m.amount when m.debit_account = a.id then -m.amount end), 0)
          as cost
        from transfer m where m.envelope_id = c.envelope_id and m.code in ('top_up', 'return')
          and (m.credit_account = a.id and m.code = 'top_up' or m.debit_account = a.id and m.code = 'return')
      ) t
    )
    select (select count(*) from completed)::integer as runs, balance_class as "balanceClass", currency,
      percentile_disc(0.1) within group (order by cost)::bigint as p10,
      percentile_disc(0.9) within group (order by cost)::bigint as p90
    from cost group by balance_class, currency order by balance_class desc, currency`.execute(db)
  return rows
}
