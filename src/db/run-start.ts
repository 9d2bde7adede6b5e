import type { RunRequest } from '#contracts/api-run.ts'
import type { Transaction } from 'kysely'
import { addCommand } from './command.ts'
import type { Scope } from './database.ts'
import { addEvent } from './event.ts'
import { newId } from './ids.ts'
import { json } from './json.ts'
import { openEnvelope } from './ledger.ts'
import { fundingsOf, refuseFunding } from './run-funding.ts'
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
  refuseFunding(await openEnvelope(trx, scope, { envelopeId, runId, apiKeyId: run.keyId, fundings }))
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
