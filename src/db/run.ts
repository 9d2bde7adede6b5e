import { isTerminal, mayBecome, type RunState } from '#domain/run-states.ts'
import type {
  BegunRun,
  ClosingRequest,
  EndReason,
  FinishRequest,
  MoneyStop,
  PauseReason,
  RunStanding,
} from '#contracts/activities.ts'
import type { Tight } from '#contracts/call-choices.ts'
import { constraintsOf } from '#contracts/constraints.ts'
import { keyConstraintsSchema, runOptionsSchema } from '#contracts/stored.ts'
import type { RouteBounds } from '#domain/route-choice.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { closeTree } from './envelope.ts'
import { json } from './json.ts'
import { setGate } from './ledger.ts'
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
  /** What its calls may use: of the run, and of its key. */
  readonly bounds: readonly RouteBounds[]
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
    .executeTakeFirstOrThrow()
  const { mayRepeat, constraints, tight, reuse } = runOptionsSchema.parse(row.options)
  return {
    scope: { projectId: row.project_id },
    runId,
    envelopeId: row.envelope_id,
    apiKeyId: row.api_key_id,
    model: row.model,
    mayRepeat,
    tight,
    reuse: reuse ? { maxAgeMs: reuse.maxAgeSeconds * 1_000 } : undefined,
    bounds: constraintsOf(constraints, keyConstraintsSchema.parse(row.constraints)),
  }
}

/** queued → running, and what the agent needs. Asked again, it answers the same. */
export async function beginRun(
  db: Kysely<Database>,
  scope: Scope,
  runId: string,
): Promise<BegunRun | { readonly closing: true }> {
  return db.transaction().execute(async (trx) => {
    const row = await runQuery(trx, scope, runId).executeTakeFirstOrThrow()
    if (isTerminal(row.state) || row.gate === 'closing' || row.gate === 'closed') return { closing: true }
    if (row.state === 'queued') await become(trx, scope, { runId, from: row.state, to: 'running' })
    const options = runOptionsSchema.parse(row.options)
    return {
      input: row.input,
      model: row.model,
      onExhausted: options.onExhausted,
      pauseDeadlineMs: options.pauseDeadlineMs,
    }
  })
}

/**
 * Freezes the envelope because a call could not be paid, unless the money has come since. The pockets are locked while
 * this is decided: a top-up comes either before (the run goes on) or after (it ends the pause).
 */
export async function pauseForMoney(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly runId: string; readonly stop: MoneyStop },
): Promise<RunStanding> {
  const { runId, stop } = request
  return db.transaction().execute(async (trx) => {
    const row = await runQuery(trx, scope, runId).executeTakeFirstOrThrow()
    const envelope = { envelopeId: row.envelope_id, reason: 'money_exhausted' }
    const gate = await setGate(trx, scope, { ...envelope, gate: 'frozen' })
    if (gate !== 'frozen') return standing(row.state, gate)
    const from = await lockState(trx, scope, runId)
    if (await moneyHasCome(trx, scope, stop.refusalId)) {
      await setGate(trx, scope, { ...envelope, gate: 'open' })
      if (from === 'paused') await become(trx, scope, { runId, from, to: 'running', why: null })
      return standing(from === 'paused' ? 'running' : from, 'open')
    }
    if (from !== 'running') return standing(from, gate)
    await become(trx, scope, {
      runId,
      from,
      to: 'paused',
      why: { reason: 'money_exhausted', detail: moneyDetail(stop), stop },
    })
    return 'paused'
  })
}

/** Which limit, what it needed and what was free, as one sentence. */
function moneyDetail(stop: MoneyStop): string {
  return `${stop.limit} is exhausted: ${stop.needed} ${stop.currency} needed, ${stop.free} ${stop.currency} free`
}

/** Whether any hold that this call was refused may fit now, on a route that has not been tried since. */
export async function moneyHasCome(trx: Transaction<Database>, scope: Scope, refusalId: string): Promise<boolean> {
  const { rows } = await sql`
    select from refusal asked
    join refusal r on r.call_id = asked.call_id
    join account a on a.id = r.account_id
    where asked.hold_id = ${refusalId} and asked.project_id = ${scope.projectId}
      and case r.bound
        when 'limit' then r.resets_at <= clock_timestamp()
          or exists (select from usage_limit l where l.id = r.limit_id and (l.retired_at is not null or l.cap > r.cap))
        else a.posted_credit - a.posted_debit - a.pending_debit >= r.asked end
      and not exists (
        select from attempt t
        where t.call_id = r.call_id and t.number > r.attempt and t.plan->>'route' = r.plan->>'route'
      )
    limit 1`.execute(trx)
  return rows.length > 0
}

/** From this commit on no request begins; those in flight are aborted. Money that is out comes back as they settle. */
export async function beginClosing(db: Kysely<Database>, scope: Scope, request: ClosingRequest): Promise<RunStanding> {
  return db.transaction().execute(async (trx) => {
    const { envelope_id: envelopeId } = await runQuery(trx, scope, request.runId).executeTakeFirstOrThrow()
    const gate = (to: 'open' | 'frozen' | 'closing') =>
      setGate(trx, scope, { envelopeId, gate: to, reason: request.reason })
    // Freezing takes the envelope's lock, so that a top-up comes either before the look at the state or after the end.
    const before = await gate('frozen')
    const state = await lockState(trx, scope, request.runId)
    if (isTerminal(state)) return 'finished'
    if (request.from === 'paused' && state !== 'paused')
      return standing(state, before === 'frozen' ? await gate('open') : before)
    await markEnding(trx, scope, { runId: request.runId, why: request })
    return standing(state, await gate('closing'))
  })
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
  return standing(row.state, row.gate)
}

/**
 * Closes the envelope, what is below it first, and writes the final state in one transaction, unless a hold is open. The gate is set in a
 * transaction of its own before: closing locks the wallet first, and the gate the envelope.
 */
export async function finishRun(
  db: Kysely<Database>,
  scope: Scope,
  request: FinishRequest,
): Promise<{ readonly finished: boolean }> {
  const { runId, end } = request
  const row = await runQuery(db, scope, runId).executeTakeFirstOrThrow()
  if (isTerminal(row.state)) return { finished: true }
  const envelope = { envelopeId: row.envelope_id, reason: end.reason }
  await setGate(db, scope, { ...envelope, gate: 'closing' })
  return db.transaction().execute(async (trx) => {
    const verdict = await closeTree(trx, scope, envelope)
    if (verdict !== 'closed') return { finished: false }
    const from = await lockState(trx, scope, runId)
    if (isTerminal(from)) return { finished: true }
    if (end.state !== 'completed') await markEnding(trx, scope, { runId, why: end })
    const to = mayBecome(from, end.state) ? end.state : 'cancelled'
    const why = to === 'completed' ? { reason: end.reason, detail: end.detail } : undefined
    await become(trx, scope, { runId, from, to, ...(why && { why }), output: request.output })
    return { finished: true }
  })
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
      ...(change.from === 'queued' && { started_at: sql<Date>`clock_timestamp()` }),
      ...(ends && { finished_at: sql<Date>`clock_timestamp()`, output: json(change.output ?? null) }),
    })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', change.runId)
    .returning(['reason', 'detail', 'stop'])
    .executeTakeFirstOrThrow()
  await trx
    .insertInto('event')
    .values({
      project_id: scope.projectId,
      run_id: change.runId,
      kind: `run.${change.to}`,
      data: json({ from: change.from, ...row }),
    })
    .execute()
}

function whyColumns(why: Why | null) {
  return { reason: why?.reason ?? null, detail: why?.detail ?? null, stop: why?.stop ? json(why.stop) : null }
}

function standing(state: RunState, gate: string): RunStanding {
  if (isTerminal(state)) return 'finished'
  if (gate === 'closing' || gate === 'closed') return 'closing'
  return state === 'paused' || gate === 'frozen' ? 'paused' : 'running'
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

function runQuery(db: Kysely<Database>, scope: Scope, runId: string) {
  return db
    .selectFrom('run')
    .innerJoin('envelope', 'envelope.id', 'run.envelope_id')
    .select([
      'run.state',
      'run.input',
      'run.model',
      'run.options',
      'run.envelope_id',
      'run.api_key_id',
      'envelope.gate',
    ])
    .where('run.project_id', '=', scope.projectId)
    .where('run.id', '=', runId)
}
