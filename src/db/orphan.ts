import { sql, type Kysely } from 'kysely'
import type { OpenAttempt } from './call.ts'
import type { Database } from './schema.ts'

/** Attempts that this process was granted and has not resolved, of any tenant: for its own sweep. */
export async function attemptsOf(
  db: Kysely<Database>,
  instanceId: string,
): Promise<readonly (OpenAttempt & { readonly projectId: string })[]> {
  const { rows } = await sql<OpenAttempt & { projectId: string }>`
    select project_id as "projectId", call_id as "callId", number, run_id as "runId", account_id as "accountId",
      hold_id as "holdId", held, instance_id as "instanceId", owner, true as "ownerAlive"
    from attempt where state = 'sent' and instance_id = ${instanceId}`.execute(db)
  return rows
}
