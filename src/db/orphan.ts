import { sql, type Kysely } from 'kysely'
import type { OpenAttempt } from './call.ts'
import type { Database } from './schema.ts'

/** Most attempts of one sweep; the next one goes on. */
const SWEEP_LIMIT = 500

/** Attempts not resolved that are this process's own or a dead one's, of any tenant: for the sweep. */
export async function attemptsOfMeAndTheDead(
  db: Kysely<Database>,
  instanceId: string,
): Promise<readonly (OpenAttempt & { readonly projectId: string })[]> {
  const { rows } = await sql<OpenAttempt & { projectId: string }>`
    select project_id as "projectId", call_id as "callId", number, run_id as "runId", account_id as "accountId",
      hold_id as "holdId", held, instance_id as "instanceId", owner, instance_id = ${instanceId} as "ownerAlive"
    from attempt a
    where state = 'sent' and (instance_id = ${instanceId} or not exists (
      select from instance i where i.id = a.instance_id and i.lease_until > clock_timestamp()
    ))
    order by sent_at limit ${SWEEP_LIMIT}`.execute(db)
  return rows
}
