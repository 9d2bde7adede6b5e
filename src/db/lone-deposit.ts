import { sql, type Kysely, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

const WITHIN = sql`interval '24 hours'`

/** The tenant's organisation, locked for what is deposited in a currency until the transaction ends. */
export async function lockLoneDeposits(trx: Transaction<Database>, scope: Scope, currency: string): Promise<string> {
  const { organisation_id: id } = await trx
    .selectFrom('project')
    .select('organisation_id')
    .where('id', '=', scope.projectId)
    .executeTakeFirstOrThrow()
  await sql`select pg_advisory_xact_lock(hashtextextended(${`deposits ${id} ${currency}`}, 0))`.execute(trx)
  return id
}

/**
 * What was deposited alone within the last 24 hours by the database's clock, in nano: in all projects of the organisation, by
 * whichever key. A reversal takes nothing off: what was taken back may have been spent before.
 */
export async function loneDepositsOfDay(
  db: Kysely<Database>,
  organisationId: string,
  currency: string,
): Promise<bigint> {
  const { sum } = await db
    .selectFrom('lone_deposit')
    .select(sql<bigint>`coalesce(sum(amount), 0)::bigint`.as('sum'))
    .where('organisation_id', '=', organisationId)
    .where('currency', '=', currency)
    .where('made_at', '>', sql<Date>`clock_timestamp() - ${WITHIN}`)
    .executeTakeFirstOrThrow()
  return sum
}

/** Counts a deposit from now on, which was made without a second operator. @param deposit its `amount` in nano */
export async function countLoneDeposit(
  trx: Transaction<Database>,
  organisationId: string,
  deposit: { readonly id: string; readonly currency: string; readonly amount: bigint },
): Promise<void> {
  const { id, currency, amount } = deposit
  await trx
    .insertInto('lone_deposit')
    .values({ deposit_id: id, organisation_id: organisationId, currency, amount })
    .execute()
}
