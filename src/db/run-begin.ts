import type { BegunRun } from '#contracts/activities.ts'
import { runOptionsSchema } from '#contracts/stored.ts'
import { isTerminal } from '#domain/run-states.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { become, runQuery } from './run.ts'
import type { Database } from './schema.ts'

/**
 * queued → running, and what the agent needs. Its time begins with it. Asked again, it answers the same, but for the time
 * that is left.
 */
export async function beginRun(
  db: Kysely<Database>,
  scope: Scope,
  runId: string,
): Promise<BegunRun | { readonly closing: true }> {
  return db.transaction().execute(async (trx) => {
    const row = await runQuery(trx, scope, runId).forNoKeyUpdate('run').executeTakeFirstOrThrow()
    const { state } = row
    if (isTerminal(state) || row.gate === 'closing' || row.gate === 'closed') return { closing: true }
    if (state === 'queued') await become(trx, scope, { runId, from: state, to: 'running' })
    else await markStarted(trx, scope, runId)
    const options = runOptionsSchema.parse(row.options)
    const { onExhausted, pauseDeadlineMs, downgrade, limits, mayRepeat, wrapUpPercent } = options
    const seconds = limits?.seconds
    const deadlineInMs = seconds === undefined ? undefined : await setDeadline(trx, scope, { runId, seconds })
    return {
      input: row.input,
      model: row.model,
      onExhausted,
      pauseDeadlineMs,
      ...(deadlineInMs !== undefined && { deadlineInMs }),
      ...(wrapUpPercent > 0 && { hasWrapUp: true }),
      ...(row.downgraded_at !== null && { downgraded: true }),
      ...(downgrade && { afterDowngrade: downgrade.then }),
      ...(mayRepeat === 0 && { asksToRepeat: true }),
      ...(row.gate === 'frozen' && { isFrozen: true }),
    }
  })
}

/** One that was paused before its workflow began waits with it, and goes on as running. */
async function markStarted(trx: Transaction<Database>, scope: Scope, runId: string): Promise<void> {
  await trx
    .updateTable('run')
    .set({ started_at: sql<Date>`clock_timestamp()` })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', runId)
    .where('started_at', 'is', null)
    .execute()
}

/** Sets the deadline, the first time, and says how far it is, in milliseconds. */
export async function setDeadline(
  trx: Transaction<Database>,
  scope: Scope,
  { runId, seconds }: { readonly runId: string; readonly seconds: number },
): Promise<number> {
  const { rows } = await sql<{ leftMs: number }>`
    update run set deadline_at = coalesce(deadline_at, clock_timestamp() + ${seconds}::float8 * interval '1 second')
    where id = ${runId} and project_id = ${scope.projectId}
    returning extract(epoch from deadline_at - clock_timestamp())::float8 * 1000 as "leftMs"`.execute(trx)
  return Math.max(1, Math.ceil(rows[0]?.leftMs ?? 1))
}
