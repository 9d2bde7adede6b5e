import type { MoneyStop, QuestionRequest, RunStanding } from '#contracts/activities.ts'
import { runOptionsSchema } from '#contracts/stored.ts'
import { verdictOn } from '#domain/run-actions.ts'
import { isTerminal } from '#domain/run-states.ts'
import { sql, type Transaction, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import { lockEnvelopes } from './envelope.ts'
import { addEvent } from './event.ts'
import { json, storableText } from './json.ts'
import { setGate } from './ledger.ts'
import { isLastOfItsRoute, limitHasRoom } from './refusal-room.ts'
import { become, lockPlace, lockState, runQuery, standingAs, standingOf, whyColumns, type Why } from './run.ts'
import type { Database } from './schema.ts'

/** Most characters of a question that stand as a run's detail. */
const MAX_DETAIL_LENGTH = 300

/**
 * Freezes the envelope because a call could not be paid, unless the money has come since. The pockets are locked while
 * this is decided: a top-up comes either before (the run goes on) or after (it ends the pause). A run that its owner has
 * paused stays so.
 */
export async function pauseForMoney(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly runId: string; readonly stop: MoneyStop },
): Promise<RunStanding> {
  const { runId, stop } = request
  return db.transaction().execute(async (trx) => {
    const { envelope_id: envelopeId } = await runQuery(trx, scope, runId).executeTakeFirstOrThrow()
    const envelope = { envelopeId, reason: 'money_exhausted' }
    // Looked at before it is frozen: freezing one that delivers would close its reserve.
    await lockEnvelopes(trx, scope, envelopeId)
    const { place, state: from } = await lockPlace(trx, scope, runId)
    if (place === 'paused_by_owner' || verdictOn('pause', place) === 'run_finished')
      return standingOf(trx, scope, runId)
    if (await moneyHasCome(trx, scope, stop.refusalId)) {
      await setGate(trx, scope, { ...envelope, gate: 'open' })
      if (place === 'money_exhausted') await become(trx, scope, { runId, from, to: 'running', why: null })
      return standingOf(trx, scope, runId)
    }
    await setGate(trx, scope, { ...envelope, gate: 'frozen' })
    if (place === 'money_exhausted') return 'paused'
    const why: Why = { reason: 'money_exhausted', detail: moneyDetail(stop), stop }
    if (from === 'running') await become(trx, scope, { runId, from, to: 'paused', why })
    else if (from === 'paused') await pauseFor(trx, scope, { runId, why })
    await tellParents(trx, scope, { runId, detail: why.detail })
    return standingOf(trx, scope, runId)
  })
}

/** A paused run is paused for another reason now. */
export async function pauseFor(
  trx: Transaction<Database>,
  scope: Scope,
  { runId, why }: { readonly runId: string; readonly why: Why },
): Promise<void> {
  await trx
    .updateTable('run')
    .set(whyColumns(why))
    .where('project_id', '=', scope.projectId)
    .where('id', '=', runId)
    .execute()
  const { reason, detail, stop } = why
  await addEvent(trx, scope, { runId, kind: 'run.paused', data: { from: 'paused', reason, detail, stop } })
}

/** Only the root of a tree is topped up: those above a child hear that it waits. */
async function tellParents(
  trx: Transaction<Database>,
  scope: Scope,
  { runId, detail }: { readonly runId: string; readonly detail: string },
): Promise<void> {
  const { rows } = await sql<{ id: string }>`
    with recursive up as (
      select parent_run_id as id from run where id = ${runId} and project_id = ${scope.projectId}
      union all
      select r.parent_run_id from up join run r on r.id = up.id
    ) select id from up where id is not null`.execute(trx)
  for (const { id } of rows) {
    await addEvent(trx, scope, { runId: id, kind: 'run.child_paused', data: { childRunId: runId, detail } })
  }
}

/** Which limit, what it needed and what was free, as one sentence. */
function moneyDetail(stop: MoneyStop): string {
  return `${stop.limit} is exhausted: ${stop.needed} ${stop.currency} needed, ${stop.free} ${stop.currency} free`
}

/** Whether what this call was refused last on any of its routes may fit now, and that route has not been tried since. */
export async function moneyHasCome(trx: Transaction<Database>, scope: Scope, refusalId: string): Promise<boolean> {
  const { rows } = await sql`
    select from refusal asked
    join refusal r on r.call_id = asked.call_id
    join account a on a.id = r.account_id
    where asked.hold_id = ${refusalId} and asked.project_id = ${scope.projectId}
      and case r.bound
        when 'limit' then ${limitHasRoom}
        -- What a child lacks is fetched from the pockets above it.
        when 'parent' then r.asked <= (
          with recursive up(id, parent_id) as (
            select e.id, e.parent_id from envelope e where e.id = a.envelope_id
            union all
            select e.id, e.parent_id from up join envelope e on e.id = up.parent_id
          )
          select sum(p.posted_credit - p.posted_debit - p.pending_debit) from up
          join account p on p.kind = 'pocket' and p.envelope_id = up.id and p.balance_class = a.balance_class
            and p.currency = a.currency)
        else a.posted_credit - a.posted_debit - a.pending_debit >= r.asked end
      and ${isLastOfItsRoute}
    limit 1`.execute(trx)
  return rows.length > 0
}

/** The money of a run that steps down has ended: its calls use what its owner chose for that from now on. Once. */
export async function downgradeRun(
  db: Kysely<Database>,
  scope: Scope,
  { runId, stop }: { readonly runId: string; readonly stop: MoneyStop },
): Promise<RunStanding> {
  return db.transaction().execute(async (trx) => {
    await lockState(trx, scope, runId)
    const row = await runQuery(trx, scope, runId).executeTakeFirstOrThrow()
    if (row.downgraded_at === null && !isTerminal(row.state)) {
      const { downgrade } = runOptionsSchema.parse(row.options)
      await trx
        .updateTable('run')
        .set({ downgraded_at: sql<Date>`clock_timestamp()` })
        .where('project_id', '=', scope.projectId)
        .where('id', '=', runId)
        .execute()
      await addEvent(trx, scope, { runId, kind: 'run.downgraded', data: { to: downgrade ?? null, stop } })
    }
    return standingAs(row)
  })
}

/**
 * Puts a question to a run's owner and pauses the run for input, or gives the answer that there is. Its gate stays open:
 * what else the run does goes on. A run that is ending asks nobody: answers to it are refused, and its reason stands.
 */
export async function askOwner(
  db: Kysely<Database>,
  scope: Scope,
  request: QuestionRequest,
): Promise<{ readonly answer?: string; readonly isEnding?: true }> {
  const { runId, path, question, choices, otherwise } = request
  return db.transaction().execute(async (trx) => {
    const { place, state } = await lockPlace(trx, scope, runId)
    const given = await answerAt(trx, { runId, path })
    if (given !== undefined) return { answer: given }
    if (verdictOn('answer', place) === 'run_finished') return { isEnding: true }
    const asked = await trx
      .insertInto('run_question')
      .values({
        run_id: runId,
        path,
        project_id: scope.projectId,
        question: storableText(question),
        choices: choices ? json(choices) : null,
        answer: null,
        answered_at: null,
        answered_by: null,
      })
      .onConflict((conflict) => conflict.doNothing())
      .returning('path')
      .executeTakeFirst()
    if (asked) await addEvent(trx, scope, { runId, kind: 'run.asked', data: { path, question, choices } })
    if (otherwise !== undefined) {
      const answer = storableText(otherwise)
      await answerQuestion(trx, scope, { runId, path, answer, keyId: null })
      return { answer }
    }
    if (state === 'running') {
      await become(trx, scope, { runId, from: state, to: 'paused', why: waitsFor(question) })
    }
    return {}
  })
}

async function answerAt(
  trx: Transaction<Database>,
  { runId, path }: { readonly runId: string; readonly path: string },
): Promise<string | undefined> {
  const known = await trx
    .selectFrom('run_question')
    .select('answer')
    .where('run_id', '=', runId)
    .where('path', '=', path)
    .executeTakeFirst()
  return known?.answer ?? undefined
}

/** Why a run is paused that waits for an answer. */
export function waitsFor(question: string): Why {
  return { reason: 'input', detail: question.slice(0, MAX_DETAIL_LENGTH) }
}

/**
 * Stores the answer to an open question; when none is left, a run that was paused for input goes on. The caller holds the
 * run.
 *
 * @param answer.keyId who answered; null when the time was over
 */
export async function answerQuestion(
  trx: Transaction<Database>,
  scope: Scope,
  answer: { readonly runId: string; readonly path: string; readonly answer: string; readonly keyId: string | null },
): Promise<void> {
  const { runId, path, keyId } = answer
  await trx
    .updateTable('run_question')
    .set({ answer: answer.answer, answered_at: sql<Date>`clock_timestamp()`, answered_by: keyId })
    .where('project_id', '=', scope.projectId)
    .where('run_id', '=', runId)
    .where('path', '=', path)
    .where('answered_at', 'is', null)
    .execute()
  await addEvent(trx, scope, { runId, kind: 'run.answered', data: { path, answer: answer.answer } })
  const left = await trx
    .selectFrom('run_question')
    .select('path')
    .where('run_id', '=', runId)
    .where('answered_at', 'is', null)
    .executeTakeFirst()
  const run = await runQuery(trx, scope, runId).executeTakeFirstOrThrow()
  if (!left && run.state === 'paused' && run.reason === 'input') {
    await become(trx, scope, { runId, from: 'paused', to: 'running', why: null })
  }
}
