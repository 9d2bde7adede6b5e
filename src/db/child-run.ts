import type { ChildEnd, ChildOpening, ChildRequest, PocketMoney } from '#contracts/activities.ts'
import { runOptionsSchema } from '#contracts/stored.ts'
import { invariant } from '#domain/invariant.ts'
import { formatNano, parseDecimal } from '#domain/money.ts'
import { isTerminal } from '#domain/run-states.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { openChild, type Carving, type ChildRefusal } from './envelope.ts'
import { addEvent } from './event.ts'
import { deriveId } from './ids.ts'
import { json } from './json.ts'
import { runQuery, standingAs } from './run.ts'
import type { Database } from './schema.ts'

type Trx = Transaction<Database>

/**
 * Opens a child run in an envelope carved from its parent's remainder, in one commit, before its workflow starts. Asked
 * again for the same path it answers the same run.
 */
export async function openChildRun(db: Kysely<Database>, scope: Scope, request: ChildRequest): Promise<ChildOpening> {
  const { runId, path } = request
  const childId = deriveId(runId, 'child', path)
  const envelopeId = deriveId(runId, 'child_envelope', path)
  return db.transaction().execute(async (trx) => {
    const known = await trx.selectFrom('run').select('id').where('id', '=', childId).executeTakeFirst()
    if (known) return { kind: 'opened', runId: childId }
    const parent = await runQuery(trx, scope, runId).executeTakeFirstOrThrow()
    const standing = standingAs(parent)
    if (standing !== 'running' && standing !== 'paused')
      return refused('run_ending', 'the run that asks for it is ending')
    const carvings = await carvingsOf(trx, parent.envelope_id, request)
    if (carvings === undefined) return refused('invalid_amount', 'its budget is no amount of money')
    const child = { parentId: parent.envelope_id, envelopeId, runId: childId, kind: 'child', carvings } as const
    const refusal = await openChild(trx, scope, child)
    if (refusal) return inWords(refusal)
    await insertChild(trx, scope, { request, childId, envelopeId, parent })
    return { kind: 'opened', runId: childId }
  })
}

/** What is carved now and at most; without a budget nothing now, and as much as the parent has when it is needed. */
async function carvingsOf(
  trx: Trx,
  envelopeId: string,
  { runId, path, budget }: ChildRequest,
): Promise<readonly Carving[] | undefined> {
  if (budget) {
    const carvings = budget.map((money) => carvingOf(money, deriveId(runId, 'carve', path, kindOf(money))))
    return carvings.some((carving) => carving === undefined) ? undefined : carvings.flatMap((carving) => carving ?? [])
  }
  const pockets = await trx
    .selectFrom('account')
    .select(['balance_class', 'currency'])
    .where('envelope_id', '=', envelopeId)
    .where('kind', '=', 'pocket')
    .execute()
  return pockets.map(({ balance_class: balanceClass, currency }) => {
    invariant(balanceClass !== null, 'a pocket has a balance class')
    const id = deriveId(runId, 'carve', path, kindOf({ balanceClass, currency }))
    return { id, balanceClass, currency, amount: 0n, cap: null }
  })
}

function carvingOf({ balanceClass, currency, amount }: PocketMoney, id: string): Carving | undefined {
  const parsed = parseDecimal(amount)
  return parsed.ok && parsed.nano > 0n
    ? { id, balanceClass, currency, amount: parsed.nano, cap: parsed.nano }
    : undefined
}

function kindOf({ balanceClass, currency }: Pick<PocketMoney, 'balanceClass' | 'currency'>): string {
  return `${balanceClass} ${currency}`
}

/** A child spends as its parent does. One with a budget of its own ends with it: nobody can top it up. */
async function insertChild(
  trx: Trx,
  scope: Scope,
  child: {
    readonly request: ChildRequest
    readonly childId: string
    readonly envelopeId: string
    readonly parent: {
      readonly api_key_id: string
      readonly model: string
      readonly options: unknown
      readonly priority: number
      readonly downgraded_at: Date | null
      readonly source_run_id: string | null
    }
  },
): Promise<void> {
  const { request, childId, envelopeId, parent } = child
  const { agent, model = parent.model, path, budget } = request
  const { wrapUpPercent: _reserve, thresholds: _told, limits, ...options } = runOptionsSchema.parse(parent.options)
  const inputTokensPerCall = limits?.inputTokensPerCall
  await trx
    .insertInto('run')
    .values({
      id: childId,
      project_id: scope.projectId,
      api_key_id: parent.api_key_id,
      envelope_id: envelopeId,
      agent,
      model,
      input: json(request.input),
      options: json({
        ...options,
        ...(budget && { onExhausted: 'cancel' }),
        ...(inputTokensPerCall !== undefined && { limits: { inputTokensPerCall } }),
      }),
      priority: parent.priority,
      parent_run_id: request.runId,
      parent_path: path,
      ...(parent.source_run_id !== null && sourceOfChild(parent.source_run_id, request)),
      downgraded_at: parent.downgraded_at,
      reason: null,
      detail: null,
      stop: null,
      output: null,
      started_at: null,
      ending_at: null,
      finished_at: null,
    })
    .execute()
  await addEvent(trx, scope, { runId: childId, kind: 'run.queued', data: { agent, model, parentRunId: request.runId } })
  const told = { childRunId: childId, path, agent, model, budget: budget ?? null }
  await addEvent(trx, scope, { runId: request.runId, kind: 'run.child_opened', data: told })
}

/** What a fork's child is forked from: the child that the first run opened at the same path, if it did. */
function sourceOfChild(sourceRunId: string, { runId, path }: ChildRequest) {
  return {
    source_run_id: sql<string | null>`(select id from run where id = ${deriveId(sourceRunId, 'child', path)})`,
    reuse_before: sql<Date | null>`(select reuse_before from run where id = ${runId})`,
  }
}

function refused(reason: string, detail: string): ChildOpening {
  return { kind: 'refused', reason, detail }
}

function inWords({ reason, balanceClass, currency, asked, free }: ChildRefusal): ChildOpening {
  const kind = `${balanceClass} ${currency}`
  switch (reason) {
    case 'parent_short':
      return refused(
        reason,
        `it asks for ${formatNano(asked ?? 0n)} ${kind}, and ${formatNano(free ?? 0n)} are left: ask for less, or for no budget of its own`,
      )
    case 'unknown_pocket':
      return refused(reason, `the run has no ${kind} to give`)
    case 'invalid_amount':
      return refused(reason, `the budget in ${kind} is no amount, or stands twice`)
    case 'too_deep':
      return refused(reason, 'children of children go no deeper')
    case 'envelope_closed':
      return refused('run_ending', 'the run that asks for it is ending')
    case 'unknown_envelope':
    case 'unknown_run':
    case 'envelope_exists':
      throw new Error(`a child has an envelope of its own in its parent's project: ${reason}`)
  }
}

/** How a run ended; null while it goes on. */
export async function childEnd(db: Kysely<Database>, scope: Scope, runId: string): Promise<ChildEnd | null> {
  const row = await db
    .selectFrom('run')
    .select(['state', 'reason', 'detail', 'output'])
    .where('project_id', '=', scope.projectId)
    .where('id', '=', runId)
    .executeTakeFirstOrThrow()
  const { state, reason, detail, output } = row
  if (!isTerminal(state) || state === 'queued' || state === 'running' || state === 'paused') return null
  return { state, reason: reason ?? state, detail: detail ?? '', output }
}
