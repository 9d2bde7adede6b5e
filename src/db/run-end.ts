import type { ClosingRequest, Finished, FinishRequest, RunEnd, RunStanding } from '#contracts/activities.ts'
import { runOptionsSchema } from '#contracts/stored.ts'
import { isTerminal, mayBecome } from '#domain/run-states.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { closeTree, lockEnvelopes } from './envelope.ts'
import { storableText } from './json.ts'
import { setGate } from './ledger.ts'
import { retireRunLimits } from './run-limit.ts'
import { become, lockState, markEnding, runQuery, standingAs } from './run.ts'
import type { Database } from './schema.ts'

/** Why a run ends and why its wrap-up failed: two sentences, each with what somebody else may have said. */
const MAX_DETAIL_LENGTH = 1_500

/**
 * From this commit on no request of the work begins; those in flight are aborted, or may finish when the run wraps up.
 * Money that is out comes back as they settle.
 */
export async function beginClosing(db: Kysely<Database>, scope: Scope, request: ClosingRequest): Promise<RunStanding> {
  const { runId } = request
  return db.transaction().execute(async (trx) => {
    const { envelope_id: envelopeId } = await runQuery(trx, scope, runId).executeTakeFirstOrThrow()
    const gate = (to: 'open' | 'frozen' | 'closing', id = envelopeId) =>
      setGate(trx, scope, { envelopeId: id, gate: to, reason: request.reason })
    // A top-up comes either before the look at the state or after the end.
    await lockEnvelopes(trx, scope, envelopeId)
    const state = await lockState(trx, scope, runId)
    const run = await runQuery(trx, scope, runId).executeTakeFirstOrThrow()
    if (isTerminal(state)) return 'finished'
    if (run.gate === 'closing' || run.gate === 'closed') return 'closing'
    // Its gate stays as it is: a child may be frozen by the run above it alone, and goes on with that.
    if (request.from === 'paused' && state !== 'paused') return standingAs(run)
    await markEnding(trx, scope, { runId, why: request })
    const reserve = request.wrapUp ? await reserveOf(trx, scope, envelopeId) : undefined
    if (reserve === undefined) return standingAs({ ...run, gate: await gate('closing') })
    await gate('frozen')
    await markWrappingUp(trx, scope, runId)
    await gate('open', reserve)
    return 'wrapping_up'
  })
}

/** Records that a run is to deliver what it has; its time of that stands. */
export async function markWrappingUp(trx: Transaction<Database>, scope: Scope, runId: string): Promise<void> {
  await trx
    .updateTable('run')
    .set({ wrapping_up_at: sql<Date>`coalesce(wrapping_up_at, clock_timestamp())` })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', runId)
    .execute()
}

/** The wrap-up reserve of an envelope, unless it is empty or closed. */
async function reserveOf(trx: Transaction<Database>, scope: Scope, envelopeId: string): Promise<string | undefined> {
  const { rows } = await sql<{ id: string }>`
    select e.id from envelope e
    where e.parent_id = ${envelopeId} and e.project_id = ${scope.projectId} and e.kind = 'wrap_up'
      and e.gate not in ('closing', 'closed')
      and exists (select from account a where a.envelope_id = e.id and a.posted_credit > a.posted_debit)
    limit 1`.execute(trx)
  return rows[0]?.id
}

/**
 * Closes the envelope, what is below it first, and writes the final state, also of the runs below, in one transaction, unless a hold is open: then
 * the gate is closing from here on, in a transaction of its own, because closing locks the wallet first and the gate the
 * envelope.
 */
export async function finishRun(db: Kysely<Database>, scope: Scope, request: FinishRequest): Promise<Finished> {
  const { runId, wrapUpFailure } = request
  const row = await runQuery(db, scope, runId).executeTakeFirstOrThrow()
  if (isTerminal(row.state)) {
    await retireRunLimits(db, scope, runId)
    return { finished: true }
  }
  const envelope = { envelopeId: row.envelope_id, reason: request.end.reason }
  const verdict = await db.transaction().execute(async (trx): Promise<Finished> => {
    if ((await closeTree(trx, scope, envelope)) !== 'closed') return { finished: false }
    const from = await lockState(trx, scope, runId)
    if (isTerminal(from)) return { finished: true }
    const end = await endOf(trx, scope, request)
    if (end.state !== 'completed') await markEnding(trx, scope, { runId, why: end })
    if (wrapUpFailure !== undefined) await tellWrapUpFailure(trx, scope, { runId, wrapUpFailure })
    const to = mayBecome(from, end.state) ? end.state : 'cancelled'
    const why = to === 'completed' ? { reason: end.reason, detail: end.detail } : undefined
    await become(trx, scope, { runId, from, to, ...(why && { why }), output: request.output })
    await endBelow(trx, scope, runId)
    return { finished: true, ...(to !== request.end.state && { state: to }) }
  })
  if (!verdict.finished) await setGate(db, scope, { ...envelope, gate: 'closing' })
  else if (runOptionsSchema.parse(row.options).limits) await retireRunLimits(db, scope, runId)
  return verdict
}

/** How a run ends. One that its owner said is done is completed, whatever else would have ended it meanwhile. */
async function endOf(trx: Transaction<Database>, scope: Scope, { runId, end }: FinishRequest): Promise<RunEnd> {
  const { reason, detail, ending_at: endingAt } = await runQuery(trx, scope, runId).executeTakeFirstOrThrow()
  if (endingAt === null || reason !== 'finished') return end
  return { state: 'completed', reason, detail: detail ?? end.detail }
}

/** Adds to why a run ends why its deliverable is missing: whoever ended it first has told the one and not the other. */
async function tellWrapUpFailure(
  trx: Transaction<Database>,
  scope: Scope,
  { runId, wrapUpFailure }: { readonly runId: string; readonly wrapUpFailure: string },
): Promise<void> {
  const told = `The wrap-up failed: ${storableText(wrapUpFailure)}`
  await trx
    .updateTable('run')
    .set({ detail: sql<string>`left(concat_ws(' ', detail, ${told}::text), ${MAX_DETAIL_LENGTH}::integer)` })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', runId)
    .execute()
}

/**
 * Ends the runs below one whose tree is closed. Those that began have ended before; what is left was opened as the run was
 * told to stop, and nobody starts it any more.
 */
async function endBelow(trx: Transaction<Database>, scope: Scope, runId: string): Promise<void> {
  const { rows } = await sql<{ id: string }>`
    with recursive below as (
      select id from run where parent_run_id = ${runId} and project_id = ${scope.projectId}
      union all
      select r.id from below b join run r on r.parent_run_id = b.id
    ) select id from below join run using (id) where finished_at is null order by id`.execute(trx)
  const why = { reason: 'cancelled', detail: 'The run above it has ended.' } as const
  for (const { id } of rows) {
    const from = await lockState(trx, scope, id)
    if (isTerminal(from)) continue
    await markEnding(trx, scope, { runId: id, why })
    await become(trx, scope, { runId: id, from, to: 'cancelled' })
  }
}
