import { sql, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

/**
 * Has the database tell, as the event `run.threshold`, when a percentage of a pocket of the run is spent: once, in the commit
 * of the settlement that crosses it. A top-up raises what the percentages are of; what was told stays told.
 */
export async function watchRun(
  trx: Transaction<Database>,
  scope: Scope,
  run: { readonly runId: string; readonly thresholds: readonly number[] },
): Promise<void> {
  if (run.thresholds.length === 0) return
  await sql`select watch_run(${scope.projectId}, ${run.runId}, ${[...run.thresholds]}::integer[])`.execute(trx)
}
