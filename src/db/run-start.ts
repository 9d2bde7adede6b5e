import type { RunRequest } from '#contracts/api-run.ts'
import type { WhenExhausted } from '#contracts/names.ts'
import { invariant } from '#domain/invariant.ts'
import { ceilDivide } from '#domain/money.ts'
import { sql, type Transaction } from 'kysely'
import { balancesOf } from './call.ts'
import { addCommand } from './command.ts'
import type { Scope } from './database.ts'
import { openChild } from './envelope.ts'
import { addEvent } from './event.ts'
import { newId } from './ids.ts'
import { json } from './json.ts'
import { openEnvelope } from './ledger.ts'
import { checkLimitRoom, setRunLimits } from './run-limit.ts'
import { fundingsOf, refuseFunding } from './run-funding.ts'
import { watchRun } from './run-threshold.ts'
import type { Database } from './schema.ts'

type Trx = Transaction<Database>

/** What a run is started with: that of an external one refuses calls when its money ends. */
export type StartRequest = Omit<RunRequest, 'onExhausted'> & { readonly onExhausted: WhenExhausted }

/** A run as it was asked for, with everything about it checked except the money. */
export interface NewRun {
  readonly request: StartRequest
  /** The agent's input with the defaults of its schema filled in. */
  readonly input: unknown
  readonly keyId: string
  readonly nowMs: number
  readonly source?: RunSource | undefined
}

/** The run that a new one repeats. */
export interface RunSource {
  readonly runId: string
  /** Its answers to calls that were opened before are used again, at no cost: an instant of the database, as its text. */
  readonly reuseBefore: string | null
}

/**
 * Sets the money aside and writes the run, its start command and its first event. The caller's transaction makes it all
 * or nothing.
 *
 * @throws Problem `wallet_short`, `debt_outstanding`, `limit_short`
 */
export async function startRun(trx: Trx, scope: Scope, run: NewRun): Promise<string> {
  const { request, nowMs } = run
  const runId = newId(nowMs)
  const envelopeId = newId(nowMs)
  const fundings = fundingsOf(request.envelope.pockets, nowMs)
  refuseFunding(await openEnvelope(trx, scope, { envelopeId, runId, apiKeyId: run.keyId, fundings }))
  await checkLimitRoom(trx, scope, envelopeId)
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
      source_run_id: run.source?.runId ?? null,
      reuse_before: run.source?.reuseBefore == null ? null : sql<Date>`${run.source.reuseBefore}::timestamptz`,
      reason: null,
      detail: null,
      stop: null,
      output: null,
      started_at: null,
      ending_at: null,
      finished_at: null,
    })
    .execute()
  const { agent, model, envelope, limits } = request
  await watchRun(trx, scope, { runId, thresholds: request.thresholds })
  await keepReserve(trx, scope, { envelopeId, percent: envelope.wrapUpPercent, nowMs })
  if (limits) await setRunLimits(trx, scope, { runId, keyId: run.keyId, limits, nowMs })
  await addCommand(trx, scope, { runId, kind: 'start', body: { pockets: envelope.pockets }, nowMs })
  const data = { agent, model, pockets: envelope.pockets, ...(run.source && { sourceRunId: run.source.runId }) }
  await addEvent(trx, scope, { runId, kind: 'run.queued', data })
  return runId
}

export async function envelopeOfRun(trx: Trx, scope: Scope, runId: string): Promise<string> {
  const row = await trx
    .selectFrom('run')
    .select('envelope_id')
    .where('project_id', '=', scope.projectId)
    .where('id', '=', runId)
    .executeTakeFirstOrThrow()
  return row.envelope_id
}

/** Carves the wrap-up reserve out of each pocket, rounded up: what it delivers from is never short for a unit. */
async function keepReserve(
  trx: Trx,
  scope: Scope,
  reserve: { readonly envelopeId: string; readonly percent: number; readonly nowMs: number },
): Promise<void> {
  const { envelopeId: parentId, percent, nowMs } = reserve
  if (percent === 0) return
  const carvings = (await balancesOf(trx, scope, parentId)).map(({ balanceClass, currency, balance }) => {
    const amount = ceilDivide(balance * BigInt(percent), 100n)
    return { id: newId(nowMs), balanceClass, currency, amount, cap: amount }
  })
  const envelopeId = newId(nowMs)
  const refusal = await openChild(trx, scope, { parentId, envelopeId, runId: null, kind: 'wrap_up', carvings })
  invariant(!refusal, `the reserve is a part of what was just funded: ${refusal?.reason}`)
}

/** What the owner chose, as it is stored. */
function optionsOf(request: StartRequest): Readonly<Record<string, unknown>> {
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
