import { placeOf, type RunPlace } from '#domain/run-actions.ts'
import { isTerminal, type RunState } from '#domain/run-states.ts'
import type { EndReason, MoneyStop, PauseReason, RunStanding } from '#contracts/activities.ts'
import type { Tight } from '#contracts/call-choices.ts'
import { constraintsOf } from '#contracts/constraints.ts'
import { keyConstraintsSchema, runOptionsSchema } from '#contracts/stored.ts'
import type { RouteBounds } from '#domain/route-choice.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { addEvent } from './event.ts'
import { json, storableText } from './json.ts'
import type { Database } from './schema.ts'

/** What the engine must know of a run to execute its calls. */
export interface RunFacts {
  readonly scope: Scope
  readonly runId: string
  readonly envelopeId: string
  readonly apiKeyId: string
  readonly model: string
  readonly mayRepeat: number
  readonly tight: Tight
  readonly reuse: { readonly maxAgeMs: number } | undefined
  /** The run whose stored answers are its own, up to where it was forked. */
  readonly fork: { readonly sourceRunId: string } | undefined
  /** The longest prompt of a call. */
  readonly inputTokensPerCall: number | undefined
  /** What its calls may use: of the run, and of its key. */
  readonly bounds: readonly RouteBounds[]
  /** What they use in place of that once the run was downgraded. */
  readonly downgrade: { readonly model: string | undefined; readonly bounds: readonly RouteBounds[] } | undefined
  /** What pays when the run delivers after it was stopped. */
  readonly wrapUpEnvelopeId: string | undefined
}

/** The tenant of a run, for the platform's own workers: they are handed nothing but the run's id. */
export async function tenantOfRun(db: Kysely<Database>, runId: string): Promise<Scope> {
  const row = await db.selectFrom('run').select('project_id').where('id', '=', runId).executeTakeFirstOrThrow()
  return { projectId: row.project_id }
}

/** For the platform's own workers, as above. */
export async function runFacts(db: Kysely<Database>, runId: string): Promise<RunFacts> {
  const row = await db
    .selectFrom('run')
    .selectAll('run')
    .where('run.id', '=', runId)
    .leftJoin('api_key', 'api_key.id', 'run.api_key_id')
    .select('api_key.constraints')
    .leftJoin('envelope as reserve', (join) =>
      join.onRef('reserve.parent_id', '=', 'run.envelope_id').on('reserve.kind', '=', 'wrap_up'),
    )
    .select('reserve.id as reserve_id')
    .executeTakeFirstOrThrow()
  const { mayRepeat, constraints, tight, reuse, downgrade, limits } = runOptionsSchema.parse(row.options)
  const ofKey = keyConstraintsSchema.parse(row.constraints)
  return {
    scope: { projectId: row.project_id },
    runId,
    envelopeId: row.envelope_id,
    apiKeyId: row.api_key_id,
    model: row.model,
    mayRepeat,
    tight,
    reuse: reuse ? { maxAgeMs: reuse.maxAgeSeconds * 1_000 } : undefined,
    fork: row.source_run_id !== null && row.reuse_before !== null ? { sourceRunId: row.source_run_id } : undefined,
    inputTokensPerCall: limits?.inputTokensPerCall,
    bounds: constraintsOf(constraints, ofKey),
    downgrade: downgrade
      ? { model: downgrade.model, bounds: constraintsOf(downgrade.constraints ?? constraints, ofKey) }
      : undefined,
    wrapUpEnvelopeId: row.reserve_id ?? undefined,
  }
}

/** Records why a run is ending. Whoever ends it first stands: a later reason changes nothing. */
export async function markEnding(
  trx: Transaction<Database>,
  scope: Scope,
  ending: { readonly runId: string; readonly why: Why },
): Promise<void> {
  await trx
    .updateTable('run')
    .set({ ...whyColumns(ending.why), ending_at: sql<Date>`clock_timestamp()` })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', ending.runId)
    .where('ending_at', 'is', null)
    .execute()
}

export async function standingOf(db: Kysely<Database>, scope: Scope, runId: string): Promise<RunStanding> {
  const row = await runQuery(db, scope, runId).executeTakeFirstOrThrow()
  return standingAs(row)
}

/** Why a run is paused or ends. */
export interface Why {
  readonly reason: EndReason | PauseReason
  readonly detail: string
  readonly stop?: MoneyStop
}

/** Changes a run's state and tells it as an event, in the caller's transaction. Without `why` the reason stays as it is. */
export async function become(
  trx: Transaction<Database>,
  scope: Scope,
  change: {
    readonly runId: string
    readonly from: RunState
    readonly to: RunState
    readonly why?: Why | null
    readonly output?: unknown
  },
): Promise<void> {
  const ends = isTerminal(change.to)
  const row = await trx
    .updateTable('run')
    .set({
      state: change.to,
      ...(change.why !== undefined && whyColumns(change.why)),
      ...(change.from === 'queued' && change.to !== 'paused' && { started_at: sql<Date>`clock_timestamp()` }),
      ...(ends && { finished_at: sql<Date>`clock_timestamp()`, output: json(change.output ?? null) }),
    })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', change.runId)
    .returning(['reason', 'detail', 'stop'])
    .executeTakeFirstOrThrow()
  await addEvent(trx, scope, { runId: change.runId, kind: `run.${change.to}`, data: { from: change.from, ...row } })
}

/** Also for a run that stays in its state for another reason. */
export function whyColumns(why: Why | null) {
  const detail = why ? storableText(why.detail) : null
  return { reason: why?.reason ?? null, detail, stop: why?.stop ? json(why.stop) : null }
}

/** Where a run stands, from its row and its envelope's gate. */
export function standingAs(run: {
  readonly state: RunState
  readonly gate: string
  readonly wrapping_up_at: Date | null
}): RunStanding {
  if (isTerminal(run.state)) return 'finished'
  if (run.gate === 'closing' || run.gate === 'closed') return 'closing'
  if (run.wrapping_up_at !== null) return 'wrapping_up'
  // One that waits for an answer alone has an open gate, and its calls go on.
  return run.gate === 'frozen' ? 'paused' : 'running'
}

/** Where a run stands for whoever acts on it; locked. Its envelope was locked before, so that its gate stays. */
export async function lockPlace(
  trx: Transaction<Database>,
  scope: Scope,
  runId: string,
): Promise<{ readonly place: RunPlace; readonly state: RunState; readonly hasBegun: boolean }> {
  await lockState(trx, scope, runId)
  const run = await runQuery(trx, scope, runId).executeTakeFirstOrThrow()
  const { state, reason } = run
  const standing = standingAs(run)
  const isEnding = run.ending_at !== null || standing === 'closing'
  const place = placeOf({ state, reason, isEnding, isWrappingUp: standing === 'wrapping_up' })
  return { place, state, hasBegun: run.started_at !== null }
}

export async function lockState(trx: Transaction<Database>, scope: Scope, runId: string): Promise<RunState> {
  const row = await trx
    .selectFrom('run')
    .select('state')
    .where('project_id', '=', scope.projectId)
    .where('id', '=', runId)
    .forNoKeyUpdate()
    .executeTakeFirstOrThrow()
  return row.state
}

/** A run with what its standing depends on. */
export function runQuery(db: Kysely<Database>, scope: Scope, runId: string) {
  return db
    .selectFrom('run')
    .innerJoin('envelope', 'envelope.id', 'run.envelope_id')
    .select([
      'run.state',
      'run.agent',
      'run.input',
      'run.model',
      'run.options',
      'run.envelope_id',
      'run.api_key_id',
      'run.reason',
      'run.detail',
      'run.started_at',
      'run.ending_at',
      'run.deadline_at',
      'run.downgraded_at',
      'run.wrapping_up_at',
      'run.priority',
      'run.source_run_id',
      'envelope.gate',
    ])
    .where('run.project_id', '=', scope.projectId)
    .where('run.id', '=', runId)
}
