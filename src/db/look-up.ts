import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

interface AttemptName {
  readonly callId: string
  readonly number: number
}

/** Keeps what a provider calls a request, while the attempt is in flight. */
export async function keepRequestId(
  db: Kysely<Database>,
  scope: Scope,
  attempt: AttemptName & { readonly requestId: string },
): Promise<void> {
  const { callId, number, requestId } = attempt
  await sql`select note_request_id(${scope.projectId}, ${callId}, ${number}, ${requestId})`.execute(db)
}

/** Keeps that a provider was asked, and that this changed nothing. */
export async function keepLookUp(
  db: Kysely<Database>,
  scope: Scope,
  attempt: AttemptName & { readonly answer: string },
): Promise<void> {
  const { callId, number, answer } = attempt
  await sql`select note_look_up(${scope.projectId}, ${callId}, ${number}, ${answer})`.execute(db)
}

/** An attempt whose cost is not known for sure, and that its provider can be asked about. */
export interface Askable extends AttemptName {
  readonly projectId: string
  readonly runId: string | null
  readonly accountId: string
  readonly holdId: string
  readonly outcome: string
  readonly plan: unknown
  readonly requestId: string
  /** Its owner came late with an estimate, which was booked as a correction. */
  readonly isLateEstimate: boolean
  /** Since it was resolved, in milliseconds of the database's clock. */
  readonly ageMs: number
}

/** Until an attempt is so old, in seconds, it is asked about each time; later more and more rarely, and after a day no more. */
const YOUNG_S = 60

/** Attempts of some providers that are not known for sure yet, of any tenant: others each time, so that each has its turn. */
export async function askableAttempts(
  db: Kysely<Database>,
  request: { readonly providers: readonly string[]; readonly limit: number },
): Promise<readonly Askable[]> {
  const { rows } = await sql<Askable>`
    select a.project_id as "projectId", a.run_id as "runId", a.call_id as "callId", a.number, a.account_id as "accountId",
      a.hold_id as "holdId", a.outcome, a.plan, a.detail->>'providerRequestId' as "requestId",
      a.detail ? 'lateCertainty' as "isLateEstimate",
      extract(epoch from clock_timestamp() - a.resolved_at)::float8 * 1000 as "ageMs"
    from attempt a
    where (a.outcome in ('lost', 'cut_stream', 'timeout', 'aborted', 'network_after_send') or a.detail ? 'certainty')
      and a.detail->>'providerRequestId' is not null and not a.detail ? 'lookedUp'
      and a.resolved_at > clock_timestamp() - interval '1 day'
      and random() * extract(epoch from clock_timestamp() - a.resolved_at) < ${YOUNG_S}::float8
      and a.plan->>'provider' = any(${request.providers}::text[])
    order by random() limit ${request.limit}`.execute(db)
  return rows
}
