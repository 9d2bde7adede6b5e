import type { AttemptReport, CallReport } from '#contracts/report.ts'
import { attemptDetailSchema, planSchema, usageSchema } from '#contracts/stored.ts'
import { foldAttempt, type AttemptSums } from '#domain/journal.ts'
import { toAmount } from '#domain/money.ts'
import type { Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { RunEntry } from './journal.ts'
import type { Database } from './schema.ts'

export interface CallFilter {
  readonly runId: string
  readonly callId?: string
}

/** The calls of a run with all their attempts and refusals; every amount is folded from the given journal. */
export async function readCalls(
  db: Kysely<Database>,
  scope: Scope,
  request: CallFilter & { readonly journal: readonly RunEntry[] },
): Promise<readonly CallReport[]> {
  const calls = await callRows(db, scope, request)
  const attempts = [...(await attemptRows(db, scope, request)), ...(await refusalRows(db, scope, request))]
  const entries = Map.groupBy(request.journal, (entry) => `${entry.callId}:${entry.attempt}`)
  return calls.map((call) => {
    const own = attempts.filter((attempt) => attempt.callId === call.id).toSorted((a, b) => a.number - b.number)
    const reports = own.map((attempt) =>
      attempt.kind === 'refusal'
        ? refusalReport(attempt)
        : attemptReport(attempt, foldAttempt(entries.get(`${call.id}:${attempt.number}`) ?? [])),
    )
    return {
      id: call.id,
      path: call.path,
      model: call.model,
      state: call.state,
      answeredBy: call.answer_attempt,
      stopReason: call.stop_reason,
      stopDetail: call.stop_detail,
      skipped: own[0] ? planSchema.parse(own[0].plan).skipped : [],
      attempts: reports,
    }
  })
}

function callRows(db: Kysely<Database>, scope: Scope, filter: CallFilter) {
  let query = db
    .selectFrom('call')
    .selectAll()
    .where('project_id', '=', scope.projectId)
    .where('run_id', '=', filter.runId)
    .orderBy('created_at')
    .orderBy('id')
  if (filter.callId !== undefined) query = query.where('id', '=', filter.callId)
  return query.execute()
}

interface StepRow {
  readonly kind: 'attempt' | 'refusal'
  readonly callId: string
  readonly number: number
  readonly plan: unknown
  readonly outcome: AttemptReport['outcome']
  readonly detail: unknown
  readonly usage: unknown
  readonly asked: bigint
  readonly free: bigint | null
  readonly at: Date
  readonly resolvedAt: Date | null
}

async function attemptRows(db: Kysely<Database>, scope: Scope, filter: CallFilter): Promise<readonly StepRow[]> {
  const rows = await db
    .selectFrom('attempt')
    .selectAll()
    .where('project_id', '=', scope.projectId)
    .where('run_id', '=', filter.runId)
    .execute()
  return rows.map((row) => ({
    kind: 'attempt',
    callId: row.call_id,
    number: row.number,
    plan: row.plan,
    outcome: row.outcome,
    detail: row.detail,
    usage: row.usage,
    asked: row.held,
    free: null,
    at: row.sent_at,
    resolvedAt: row.resolved_at,
  }))
}

async function refusalRows(db: Kysely<Database>, scope: Scope, filter: CallFilter): Promise<readonly StepRow[]> {
  const rows = await db
    .selectFrom('refusal')
    .selectAll()
    .where('project_id', '=', scope.projectId)
    .where('run_id', '=', filter.runId)
    .execute()
  return rows.map((row) => ({
    kind: 'refusal',
    callId: row.call_id,
    number: row.attempt,
    plan: row.plan,
    outcome: 'hold_refused',
    detail: null,
    usage: null,
    asked: row.asked,
    free: row.free,
    at: row.recorded_at,
    resolvedAt: row.recorded_at,
  }))
}

/** A refusal moved no money: everything but what it asked is zero. */
function refusalReport(row: StepRow): AttemptReport {
  const { currency } = planSchema.parse(row.plan)
  const nothing = { held: 0n, captured: 0n, released: 0n, overage: 0n, corrected: 0n, charged: 0n }
  const report = attemptReport(row, { ...nothing, certainty: null, use: null, open: false, transfers: [] })
  return { ...report, held: toAmount(row.asked, currency) }
}

function attemptReport(row: StepRow, sums: AttemptSums): AttemptReport {
  const plan = planSchema.parse(row.plan)
  const money = (nano: bigint) => toAmount(nano, plan.currency)
  return {
    number: row.number,
    kind: row.kind,
    route: plan.route,
    provider: plan.provider,
    upstreamModel: plan.upstreamModel,
    balanceClass: plan.balanceClass,
    outcome: row.outcome,
    why: plan.why,
    after: plan.after,
    message: attemptDetailSchema.parse(row.detail)?.message ?? null,
    held: money(sums.held),
    free: row.free === null ? null : money(row.free),
    captured: money(sums.captured),
    released: money(sums.released),
    overage: money(sums.overage),
    corrected: money(sums.corrected),
    charged: money(sums.charged),
    certainty: sums.certainty,
    use: sums.use,
    tokens: usageSchema.parse(row.usage) ?? null,
    sentAt: row.at.toISOString(),
    resolvedAt: row.resolvedAt?.toISOString() ?? null,
    transfers: [...sums.transfers],
  }
}
