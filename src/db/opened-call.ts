import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import { getPayload, isGivenUp, putPayload } from './payload.ts'
import type { Database } from './schema.ts'

/** A call as it is opened. */
export interface NewCall {
  readonly id: string
  /** Null for a call of a standing envelope. */
  readonly runId: string | null
  readonly envelopeId: string
  readonly apiKeyId: string
  readonly path: string
  readonly digest: Buffer
  readonly model: string
  readonly catalogVersion: number
  readonly requestId: string
  readonly request: unknown
}

/** As `post` takes it. */
export function callRow({ projectId }: Scope, call: NewCall): Readonly<Record<string, unknown>> {
  return {
    id: call.id,
    project_id: projectId,
    run_id: call.runId,
    envelope_id: call.envelopeId,
    api_key_id: call.apiKeyId,
    path: call.path,
    digest: `\\x${call.digest.toString('hex')}`,
    model: call.model,
    catalog_version: call.catalogVersion,
    request_id: call.requestId,
    request: call.request,
  }
}

/** Opens a call without a hold, unless it is open already: the same key is the same call. */
export async function openCall(db: Kysely<Database>, scope: Scope, call: NewCall): Promise<void> {
  await insertCall(db, scope, { call, answer: undefined })
}

/** An answer of the project to the same request, given by another call that let it be used again. */
export interface ReusableAnswer {
  readonly callId: string
  readonly answerId: string
}

export async function reusableAnswer(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly digest: Buffer; readonly maxAgeMs: number },
): Promise<ReusableAnswer | undefined> {
  const { rows } = await sql<ReusableAnswer>`
    select r.call_id as "callId", r.answer_id as "answerId" from reusable_answer r
    join payload p on p.id = r.answer_id and p.body is not null and not ${isGivenUp(sql`p.run_id`)}
    where r.project_id = ${scope.projectId} and r.digest = ${request.digest}
      and r.answered_at > clock_timestamp() - ${request.maxAgeMs}::float8 * interval '1 millisecond'
    order by r.answered_at desc limit 1`.execute(db)
  return rows[0]
}

/** The answer of the same call of the run that this one was forked from, if it was opened before the fork's point. */
export async function forkedAnswer(
  db: Kysely<Database>,
  scope: Scope,
  fork: { readonly runId: string; readonly callId: string },
): Promise<ReusableAnswer | undefined> {
  // Of a chain of forks, the call that was paid.
  const { rows } = await sql<ReusableAnswer>`
    select coalesce(c.reused_from, c.id) as "callId", c.answer_id as "answerId"
    from run f join call c on c.id = ${fork.callId} and c.run_id = f.source_run_id and c.created_at < f.reuse_before
    where f.id = ${fork.runId} and f.project_id = ${scope.projectId} and c.project_id = f.project_id
      and c.state = 'answered'`.execute(db)
  return rows[0]
}

/** Lets later calls use this answer again. */
export async function offerAnswer(
  db: Kysely<Database>,
  scope: Scope,
  offer: ReusableAnswer & { readonly digest: Buffer },
): Promise<void> {
  const { callId, answerId, digest } = offer
  await db
    .insertInto('reusable_answer')
    .values({ project_id: scope.projectId, digest, call_id: callId, answer_id: answerId })
    .onConflict((conflict) => conflict.doNothing())
    .execute()
}

async function isStored(db: Kysely<Database>, scope: Scope, id: string): Promise<boolean> {
  const payload = await getPayload(db, scope, id)
  return payload !== undefined && !payload.isErased
}

/**
 * Opens a call with a copy of another one's answer: nothing is sent, and nothing is charged. A copy, because each is kept as
 * long as its own run. False when the answer is not stored any more, or the run is given up itself.
 */
export async function openAnswered(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly call: NewCall; readonly answer: ReusableAnswer; readonly copyId: string },
): Promise<boolean> {
  const { call, answer, copyId } = request
  const { rows } = await sql`
    insert into payload (id, project_id, run_id, kind, body)
    select ${copyId}, p.project_id, ${call.runId}, 'answer', p.body from payload p
    where p.id = ${answer.answerId} and p.project_id = ${scope.projectId} and p.body is not null
      and not ${isGivenUp(sql`${call.runId}::uuid`)}
    on conflict (id) do nothing returning id`.execute(db)
  if (rows.length === 0 && !(await isStored(db, scope, copyId))) return false
  await insertCall(db, scope, { call, answer: { ...answer, answerId: copyId } })
  return true
}

async function insertCall(
  db: Kysely<Database>,
  scope: Scope,
  { call, answer }: { readonly call: NewCall; readonly answer: ReusableAnswer | undefined },
): Promise<void> {
  await putPayload(db, scope, { id: call.requestId, runId: call.runId, kind: 'request', body: call.request })
  await db
    .insertInto('call')
    .values({
      id: call.id,
      project_id: scope.projectId,
      run_id: call.runId,
      envelope_id: call.envelopeId,
      api_key_id: call.apiKeyId,
      path: call.path,
      digest: call.digest,
      model: call.model,
      catalog_version: call.catalogVersion,
      request_id: call.requestId,
      ...(answer && {
        state: 'answered',
        answer_id: answer.answerId,
        reused_from: answer.callId,
        answered_at: sql<Date>`clock_timestamp()`,
      }),
    })
    .onConflict((conflict) => conflict.column('id').doNothing())
    .execute()
}
