import { plannedCostSchema, type PlannedCost } from '#contracts/stored.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

/** What the provider billed of the holds of one route in one run. */
export interface BilledShare {
  readonly attempts: bigint
  readonly held: bigint
  readonly charged: bigint
}

/** The billed attempts of a call's run that went the same route as the given attempt: what an estimate is made from. */
export async function billedShareOf(
  db: Kysely<Database>,
  scope: Scope,
  attempt: { readonly callId: string; readonly number: number },
): Promise<BilledShare> {
  const { rows } = await sql<BilledShare>`
    select count(*) as attempts, coalesce(sum(a.held), 0)::bigint as held, coalesce(sum(t.amount), 0)::bigint as charged
    from attempt lost
    join call c on c.run_id = lost.run_id
    join attempt a on a.call_id = c.id and a.plan->>'route' = lost.plan->>'route'
    join transfer t on t.pending_id = a.hold_id and t.certainty = 'billed'
    where lost.call_id = ${attempt.callId} and lost.number = ${attempt.number} and lost.project_id = ${scope.projectId}`.execute(
    db,
  )
  const [row] = rows
  return row ?? { attempts: 0n, held: 0n, charged: 0n }
}

/** What the provider bills for an attempt, as it was planned; undefined where that is what is paid. */
export async function plannedCostOf(
  db: Kysely<Database>,
  scope: Scope,
  attempt: { readonly callId: string; readonly number: number },
): Promise<PlannedCost | undefined> {
  const { rows } = await sql<{ cost: unknown }>`
    select plan->'cost' as cost from attempt
    where call_id = ${attempt.callId} and number = ${attempt.number} and project_id = ${scope.projectId}`.execute(db)
  return plannedCostSchema.optional().parse(rows[0]?.cost ?? undefined)
}
