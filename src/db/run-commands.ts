import { EXTERNAL_AGENT } from '#contracts/agents.ts'
import type { Pockets } from '#contracts/api-money.ts'
import { Problem } from '#contracts/codes.ts'
import { verdictOn, type RunAction, type RunPlace } from '#domain/run-actions.ts'
import { sql, type Transaction } from 'kysely'
import { addCommand } from './command.ts'
import type { Scope } from './database.ts'
import { addEvent } from './event.ts'
import { lockEnvelopes } from './envelope.ts'
import { pocketsOf } from './call.ts'
import { setGate, topUpEnvelope } from './ledger.ts'
import { markWrappingUp } from './run-end.ts'
import { fundingsOf, refuseFunding, runFinished } from './run-funding.ts'
import { answerQuestion, pauseFor, waitsFor } from './run-pause.ts'
import { openQuestions, theQuestion } from './run-question.ts'
import { become, lockPlace, markEnding, runQuery } from './run.ts'
import type { Database } from './schema.ts'

type Trx = Transaction<Database>

/** What a person asks of a run. Each action is one transaction: gate, state, event and the row that wakes the workflow. */
export interface Order {
  readonly runId: string
  readonly nowMs: number
}

/**
 * Lets no request begin until the run is resumed; those in flight finish. One that waits for money or for an answer is its
 * owner's pause from now on.
 *
 * @throws Problem `run_finished`
 */
export async function pauseRun(trx: Trx, scope: Scope, { runId, nowMs }: Order): Promise<void> {
  const { envelopeId, place, state } = await lockRun(trx, scope, runId)
  if (!mayAct('pause', place)) return
  await setGate(trx, scope, { envelopeId, gate: 'frozen', reason: 'paused_by_owner' })
  const why = { reason: 'paused_by_owner', detail: 'Paused by its owner.' } as const
  if (state === 'paused') await pauseFor(trx, scope, { runId, why })
  else await become(trx, scope, { runId, from: state, to: 'paused', why })
  await addCommand(trx, scope, { runId, kind: 'pause', body: {}, nowMs })
}

/**
 * Lets a paused run go on, also one that waits for money: its call asks again.
 *
 * @throws Problem `not_paused`, `waits_for_answer`, `run_finished`
 */
export async function resumeRun(trx: Trx, scope: Scope, { runId, nowMs }: Order): Promise<void> {
  const { envelopeId, place } = await lockRun(trx, scope, runId)
  if (!mayAct('resume', place)) return
  await goOn(trx, scope, { runId, envelopeId, reason: 'resumed' })
  await addCommand(trx, scope, { runId, kind: 'resume', body: {}, nowMs })
}

/**
 * Moves more money into a run's envelope. A run that is paused for money goes on, and so do the runs below it.
 *
 * Locks in the order of pausing and finishing: wallet, the envelopes of the tree, their pockets, then the runs.
 *
 * @throws Problem `run_finished`, `not_root`, `no_pocket`, `wallet_short`, `debt_outstanding`
 */
export async function topUpRun(trx: Trx, scope: Scope, topUp: Order & { readonly pockets: Pockets }): Promise<void> {
  const { runId, pockets, nowMs } = topUp
  const { envelope_id: envelopeId } = await runQuery(trx, scope, runId).executeTakeFirstOrThrow()
  await checkPockets(trx, scope, { envelopeId, pockets })
  refuseFunding(await topUpEnvelope(trx, scope, { envelopeId, fundings: fundingsOf(pockets, nowMs) }))
  await addEvent(trx, scope, { runId, kind: 'run.topped_up', data: { pockets } })
  const { place } = await lockPlace(trx, scope, runId)
  mayAct('top_up', place)
  if (place === 'money_exhausted') await goOn(trx, scope, { runId, envelopeId, reason: 'topped_up' })
  for (const child of await childrenOf(trx, scope, runId)) {
    const below = await lockPlace(trx, scope, child.runId)
    if (below.place === 'money_exhausted') await goOn(trx, scope, { ...child, reason: 'topped_up' })
  }
  await addCommand(trx, scope, { runId, kind: 'top_up', body: { pockets }, nowMs })
}

/** How a run is cancelled. `now` aborts what is in flight; `wrap_up` lets it finish, and the run delivers what it has. */
export interface Cancel extends Order {
  readonly mode: 'now' | 'wrap_up'
  readonly reason: string | undefined
}

/**
 * Lets no request of the run's work begin any more, from this commit on, and tells its workflow to end. Asked again while
 * the run is ending, it changes nothing; asked for now while it wraps up, it ends that.
 *
 * @throws Problem `run_finished`
 */
export async function cancelRun(trx: Trx, scope: Scope, cancel: Cancel): Promise<void> {
  const { runId, nowMs } = cancel
  const { envelopeId, place, hasBegun } = await lockRun(trx, scope, runId)
  // What has not begun has nothing to deliver.
  const mode = hasBegun ? cancel.mode : 'now'
  if (!mayAct(mode === 'now' ? 'cancel' : 'wrap_up', place)) return
  const detail = cancel.reason ?? 'Cancelled by its owner.'
  if (mode === 'wrap_up') await markWrappingUp(trx, scope, runId)
  const gate = mode === 'wrap_up' ? 'frozen' : 'closing'
  await setGate(trx, scope, { envelopeId, gate, reason: mode === 'wrap_up' ? 'wrapping_up' : 'cancelled' })
  await markEnding(trx, scope, { runId, why: { reason: 'cancelled', detail } })
  await addEvent(trx, scope, { runId, kind: 'run.cancel_requested', data: { detail, mode } })
  await addCommand(trx, scope, { runId, kind: 'cancel', body: { detail, mode }, nowMs })
}

/**
 * Its work outside is done: no request begins any more, what is in flight is aborted and settled, and the run completes.
 *
 * @throws Problem `not_external`, `run_finished`
 */
export async function endRun(trx: Trx, scope: Scope, { runId, nowMs }: Order): Promise<void> {
  const { envelopeId, place, agent } = await lockRun(trx, scope, runId)
  if (agent !== EXTERNAL_AGENT) {
    throw new Problem('not_external', 'The run ends by itself: its work is not outside.', {
      remedy: 'To stop it, cancel it with POST /api/v1/runs/{id}/cancel.',
    })
  }
  if (!mayAct('end', place)) return
  await setGate(trx, scope, { envelopeId, gate: 'closing', reason: 'ended' })
  await markEnding(trx, scope, { runId, why: { reason: 'finished', detail: 'Ended by its owner.' } })
  await addCommand(trx, scope, { runId, kind: 'end', body: {}, nowMs })
}

/** An answer to a question of a run: to the one at `path`, or to the only one that is open. */
export interface Answer extends Order {
  readonly path: string | undefined
  readonly answer: string
  readonly keyId: string
}

/**
 * Stores the answer to an open question. When no other one is open, a run that is paused for input goes on.
 *
 * @throws Problem `no_question`, `many_questions`, `not_a_choice`, `run_finished`
 */
export async function answerRun(trx: Trx, scope: Scope, answer: Answer): Promise<void> {
  const { runId, keyId, nowMs } = answer
  const { place } = await lockRun(trx, scope, runId)
  mayAct('answer', place)
  const { path, choices } = theQuestion(await openQuestions(trx, scope, runId), answer.path)
  // What comes from outside has no blanks around it.
  const given = choices ? choices.find((choice) => choice.trim() === answer.answer) : answer.answer
  if (given === undefined) {
    const remedy = `Answer with one of: ${choices?.join(', ')}.`
    throw new Problem('not_a_choice', 'The question has choices, and this is none of them.', {
      remedy,
      extra: { choices },
    })
  }
  await answerQuestion(trx, scope, { runId, path, answer: given, keyId })
  await addCommand(trx, scope, { runId, kind: 'answer', body: { path, answer: given }, nowMs })
}

/** Whether there is anything to do. @throws Problem when the action is refused */
function mayAct(action: RunAction, place: RunPlace): boolean {
  const verdict = verdictOn(action, place)
  switch (verdict) {
    case 'do':
    case 'nothing':
      return verdict === 'do'
    case 'run_finished':
      throw runFinished()
    case 'not_paused':
      throw new Problem('not_paused', `The run is ${place}, so there is nothing to resume.`)
    case 'waits_for_answer':
      throw new Problem('waits_for_answer', 'The run waits for an answer.', {
        remedy: 'Answer its question with POST /api/v1/runs/{id}/answer.',
      })
  }
}

/**
 * Opens a paused run's gate. It waits on where it still has a question, and is queued where it has not begun. The caller
 * holds the run and has seen that it is paused.
 */
export async function goOn(
  trx: Trx,
  scope: Scope,
  run: {
    readonly runId: string
    readonly envelopeId: string
    readonly reason: 'resumed' | 'topped_up' | 'limit_reset'
  },
): Promise<void> {
  const { runId, envelopeId, reason } = run
  await setGate(trx, scope, { envelopeId, gate: 'open', reason })
  const [question] = await openQuestions(trx, scope, runId)
  if (question) return pauseFor(trx, scope, { runId, why: waitsFor(question.text) })
  const { hasBegun } = await lockPlace(trx, scope, runId)
  await become(trx, scope, { runId, from: 'paused', to: hasBegun ? 'running' : 'queued', why: null })
}

/** A run's envelope and where it stands, both held until the commit: the envelopes first, as whoever pauses and ends does. */
async function lockRun(trx: Trx, scope: Scope, runId: string) {
  const { envelope_id: envelopeId, agent } = await runQuery(trx, scope, runId).executeTakeFirstOrThrow()
  await lockEnvelopes(trx, scope, envelopeId)
  return { envelopeId, agent, ...(await lockPlace(trx, scope, runId)) }
}

/** A run below another one, at any depth. */
interface Child {
  readonly runId: string
  readonly envelopeId: string
}

async function childrenOf(trx: Trx, scope: Scope, runId: string): Promise<readonly Child[]> {
  const { rows } = await sql<Child>`
    with recursive below as (
      select id, envelope_id from run where parent_run_id = ${runId} and project_id = ${scope.projectId}
      union all
      select r.id, r.envelope_id from below b join run r on r.parent_run_id = b.id
    ) select id as "runId", envelope_id as "envelopeId" from below order by id`.execute(trx)
  return rows
}

/** Money enters pockets that the run has: its routes were checked against those. */
async function checkPockets(
  trx: Trx,
  scope: Scope,
  { envelopeId, pockets }: { readonly envelopeId: string; readonly pockets: Pockets },
): Promise<void> {
  const known = await pocketsOf(trx, scope, envelopeId)
  for (const { balanceClass, amount, exchangeTo } of pockets) {
    const currency = exchangeTo ?? amount.currency
    if (known.some((pocket) => pocket.balanceClass === balanceClass && pocket.currency === currency)) continue
    const names = known.map((pocket) => `${pocket.balanceClass} ${pocket.currency}`)
    throw new Problem('no_pocket', `The envelope has no pocket for ${balanceClass} ${currency}.`, {
      remedy: `Top up one of: ${names.join(', ')}; with exchangeTo, money in another currency is exchanged.`,
      extra: { pockets: names },
    })
  }
}
