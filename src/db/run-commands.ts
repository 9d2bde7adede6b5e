import type { Pockets } from '#contracts/api-money.ts'
import type { RunRequest } from '#contracts/api-run.ts'
import { Problem } from '#contracts/codes.ts'
import { parseDecimal, toAmount } from '#domain/money.ts'
import { isTerminal, type RunState } from '#domain/run-states.ts'
import { invariant } from '#domain/invariant.ts'
import type { Transaction } from 'kysely'
import { addCommand } from './command.ts'
import type { Scope } from './database.ts'
import { addEvent } from './event.ts'
import { newId } from './ids.ts'
import { json } from './json.ts'
import { openEnvelope, setGate, topUpEnvelope, type Funding, type FundingRefusal } from './ledger.ts'
import { become, markEnding } from './run.ts'
import type { Database } from './schema.ts'

type Trx = Transaction<Database>

/** A run as it was asked for, with everything about it checked except the money. */
export interface NewRun {
  readonly request: RunRequest
  /** The agent's input with the defaults of its schema filled in. */
  readonly input: unknown
  readonly keyId: string
  readonly nowMs: number
}

/**
 * Sets the money aside and writes the run, its start command and its first event. The caller's transaction makes it all
 * or nothing.
 *
 * @throws Problem `wallet_short`, `debt_outstanding`
 */
export async function startRun(trx: Trx, scope: Scope, run: NewRun): Promise<string> {
  const { request, nowMs } = run
  const runId = newId(nowMs)
  const envelopeId = newId(nowMs)
  const fundings = fundingsOf(request.envelope.pockets, nowMs)
  refuse(await openEnvelope(trx, scope, { envelopeId, runId, apiKeyId: run.keyId, fundings }))
  await trx
    .insertInto('run')
    .values({
      id: runId,
      project_id: scope.projectId,
      api_key_id: run.keyId,
      envelope_id: envelopeId,
      agent: request.agent,
      model: request.model,
      input: json(run.input),
      options: json(optionsOf(request)),
      priority: request.priority,
      reason: null,
      detail: null,
      stop: null,
      output: null,
      started_at: null,
      ending_at: null,
      finished_at: null,
    })
    .execute()
  await addCommand(trx, scope, { runId, kind: 'start', body: {}, nowMs })
  const { agent, model, envelope } = request
  await addEvent(trx, scope, { runId, kind: 'run.queued', data: { agent, model, pockets: envelope.pockets } })
  return runId
}

/**
 * Moves more money into a run's envelope. A run that is paused for money goes on.
 *
 * Locks in the order of pausing and finishing: wallet, the envelopes of the tree, their pockets, then the run.
 *
 * @throws Problem `run_finished`, `not_root`, `wallet_short`, `debt_outstanding`
 */
export async function topUpRun(
  trx: Trx,
  scope: Scope,
  topUp: { readonly runId: string; readonly pockets: Pockets; readonly nowMs: number },
): Promise<void> {
  const { runId, pockets, nowMs } = topUp
  const envelopeId = await envelopeOf(trx, scope, runId)
  refuse(await topUpEnvelope(trx, scope, { envelopeId, fundings: fundingsOf(pockets, nowMs) }))
  await addEvent(trx, scope, { runId, kind: 'run.topped_up', data: { pockets } })
  const run = await lockRun(trx, scope, runId)
  if (run.state === 'paused' && run.reason === 'money_exhausted') {
    await setGate(trx, scope, { envelopeId, gate: 'open', reason: 'topped_up' })
    await become(trx, scope, { runId, from: 'paused', to: 'running', why: null })
  }
  await addCommand(trx, scope, { runId, kind: 'top_up', body: { pockets }, nowMs })
}

/**
 * Lets no request of the run begin any more, from this commit on, and tells its workflow to end. Asked again while the
 * run is ending, it changes nothing.
 *
 * @throws Problem `run_finished`
 */
export async function cancelRun(
  trx: Trx,
  scope: Scope,
  cancel: { readonly runId: string; readonly reason: string | undefined; readonly nowMs: number },
): Promise<void> {
  const { runId, nowMs } = cancel
  const detail = cancel.reason ?? 'Cancelled by its owner.'
  const envelopeId = await envelopeOf(trx, scope, runId)
  await setGate(trx, scope, { envelopeId, gate: 'closing', reason: 'cancelled' })
  const run = await lockRun(trx, scope, runId)
  if (isTerminal(run.state)) throw finished()
  if (run.isEnding) return
  await markEnding(trx, scope, { runId, why: { reason: 'cancelled', detail } })
  await addEvent(trx, scope, { runId, kind: 'run.cancel_requested', data: { detail } })
  await addCommand(trx, scope, { runId, kind: 'cancel', body: { detail }, nowMs })
}

/** What the owner chose, as it is stored. */
function optionsOf(request: RunRequest): Readonly<Record<string, unknown>> {
  const { onExhausted, mayRepeat, pauseDeadlineSeconds, tight, thresholds, envelope } = request
  const { constraints, reuse, downgrade, limits } = request
  return {
    onExhausted,
    mayRepeat,
    pauseDeadlineMs: pauseDeadlineSeconds * 1000,
    tight,
    thresholds,
    wrapUpPercent: envelope.wrapUpPercent,
    ...(constraints && { constraints }),
    ...(reuse && { reuse }),
    ...(downgrade && { downgrade }),
    ...(limits && { limits }),
  }
}

function fundingsOf(pockets: Pockets, nowMs: number): readonly Funding[] {
  return pockets.map(({ balanceClass, amount, exchangeTo }) => {
    const parsed = parseDecimal(amount.amount)
    invariant(parsed.ok, 'amounts are checked where requests come in')
    return { id: newId(nowMs), balanceClass, currency: amount.currency, amount: parsed.nano, exchangeTo }
  })
}

function refuse(refusal: FundingRefusal | undefined): void {
  if (!refusal) return
  const { reason, balanceClass, currency, asked, free } = refusal
  const money = (nano: bigint | null) => toAmount(nano ?? 0n, currency ?? '')
  switch (reason) {
    case 'wallet_short':
      throw new Problem(
        'wallet_short',
        `The ${balanceClass} balance in ${currency} is short: ${money(asked).amount} needed, ${money(free).amount} free.`,
        {
          remedy: 'Ask for less, or let an operator deposit.',
          extra: { balanceClass, needed: money(asked), free: money(free) },
        },
      )
    case 'no_quote':
      throw new Problem('no_quote', `No quote for ${currency} is in force.`, {
        remedy: 'Let an operator store one, or fund the envelope in the currency of its routes.',
      })
    case 'wrong_currency':
      throw new Problem('invalid_request', `${currency} cannot be exchanged to itself.`, {
        remedy: 'Leave exchangeTo out.',
      })
    case 'invalid_amount':
      throw new Problem(
        'invalid_amount',
        `The amount in ${currency} is not between one nano and 1000000 after the exchange.`,
        {
          remedy: 'Exchange more, or less.',
        },
      )
    case 'no_wallet':
      throw new Problem('wallet_short', 'The project has no wallet.', {
        remedy: 'Let an operator make one and deposit into it.',
      })
    case 'debt_outstanding':
      throw new Problem('debt_outstanding', `The project owes ${money(asked).amount} ${currency} from overages.`, {
        remedy: 'Let an operator deposit: a deposit pays the debt first.',
        extra: { debt: money(asked) },
      })
    case 'envelope_closed':
      throw finished()
    case 'not_root':
      throw new Problem('not_root', 'The run is a child: its money comes from the run above it.', {
        remedy: 'Top up the run at the root of the tree.',
      })
    case 'unknown_key':
    case 'unknown_run':
    case 'unknown_envelope':
    case 'envelope_exists':
    case 'standing_envelope':
    case 'mismatch':
      throw new Error(`a run has its own key, envelope and fundings: ${reason}`)
  }
}

function finished(): Problem {
  return new Problem('run_finished', 'The run has ended, or is ending.', { remedy: 'Start another run.' })
}

async function envelopeOf(trx: Trx, scope: Scope, runId: string): Promise<string> {
  const row = await trx
    .selectFrom('run')
    .select('envelope_id')
    .where('project_id', '=', scope.projectId)
    .where('id', '=', runId)
    .executeTakeFirstOrThrow()
  return row.envelope_id
}

async function lockRun(
  trx: Trx,
  scope: Scope,
  runId: string,
): Promise<{ readonly state: RunState; readonly reason: string | null; readonly isEnding: boolean }> {
  const row = await trx
    .selectFrom('run')
    .select(['state', 'reason', 'ending_at'])
    .where('project_id', '=', scope.projectId)
    .where('id', '=', runId)
    .forNoKeyUpdate()
    .executeTakeFirstOrThrow()
  return { state: row.state, reason: row.reason, isEnding: row.ending_at !== null }
}
