import { sql, type Kysely } from 'kysely'
import type { OpenAttempt } from './call.ts'
import type { Scope } from './database.ts'
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

/** Attempts not resolved whose process is dead, of one organisation, the oldest first. */
export async function attemptsOfTheDead(
  db: Kysely<Database>,
  organisationId: string,
): Promise<readonly (OpenAttempt & { readonly projectId: string; readonly currency: string })[]> {
  const { rows } = await sql<OpenAttempt & { projectId: string; currency: string }>`
    select a.project_id as "projectId", a.call_id as "callId", a.number, a.run_id as "runId",
      a.account_id as "accountId", a.hold_id as "holdId", a.held, a.instance_id as "instanceId", a.owner,
      false as "ownerAlive", p.currency
    from attempt a join account p on p.id = a.account_id join project o on o.id = a.project_id
    where a.state = 'sent' and o.organisation_id = ${organisationId} and not exists (
      select from instance i where i.id = a.instance_id and i.lease_until > clock_timestamp()
    )
    order by a.sent_at limit ${SWEEP_LIMIT}`.execute(db)
  return rows
}

/** An attempt as a person sees it who wants to take its cost back. */
export interface LostAttempt {
  readonly runId: string
  readonly accountId: string
  readonly holdId: string
  readonly state: 'sent' | 'resolved'
  readonly outcome: string | null
  /** Whether the truth about it came later. */
  readonly isBilled: boolean
  /** Whether its hold was given back whole. */
  readonly isVoid: boolean
}

export async function lostAttempt(
  db: Kysely<Database>,
  scope: Scope,
  key: { readonly callId: string; readonly number: number },
): Promise<LostAttempt | undefined> {
  const { rows } = await sql<LostAttempt>`
    select run_id as "runId", account_id as "accountId", hold_id as "holdId", state, outcome,
      exists (
        select from transfer t where t.envelope_id = a.envelope_id and t.call_id = a.call_id and t.attempt = a.number
          and t.certainty = 'billed'
      ) as "isBilled",
      exists (select from transfer t where t.pending_id = a.hold_id and t.code = 'void') as "isVoid"
    from attempt a where call_id = ${key.callId} and number = ${key.number} and project_id = ${scope.projectId}`.execute(
    db,
  )
  return rows[0]
}
