import type { AttemptReport } from '#contracts/report.ts'
import { attemptDetailSchema, outputBoundOf, usageSchema, type Plan } from '#contracts/stored.ts'
import type { AttemptSums } from '#domain/journal.ts'
import { formatNano, toAmount } from '#domain/money.ts'
import type { Selectable } from 'kysely'
import type { Database } from './schema.ts'

type RefusalRow = Selectable<Database['refusal']>

/** An attempt, or a hold that was refused, as it is read. */
export interface StepRow {
  readonly kind: 'attempt' | 'refusal'
  readonly callId: string
  readonly number: number
  readonly plan: Plan
  /** What the journal says of it, once that is known. */
  readonly sums: AttemptSums
  readonly outcome: AttemptReport['outcome']
  readonly detail: unknown
  readonly usage: unknown
  readonly asked: bigint
  readonly free: bigint | null
  readonly refusal: RefusalRow | null
  readonly at: Date
  readonly resolvedAt: Date | null
}

/** Everything but what it asked is zero. */
export function refusalReport(row: StepRow): AttemptReport {
  const { currency } = row.plan
  const report = attemptReport(row)
  const isMoney = row.refusal?.measure === 'money'
  return {
    ...report,
    ...(isMoney ? { held: toAmount(row.asked, currency) } : { free: null }),
    bound: boundOf(row.refusal),
  }
}

function boundOf(row: RefusalRow | null): AttemptReport['bound'] {
  if (!row) return null
  const amount = (value: bigint) => (row.measure === 'money' ? formatNano(value) : value.toString())
  const amountOrNull = (value: bigint | null) => (value === null ? null : amount(value))
  return {
    by: row.bound,
    limitId: row.limit_id,
    measure: row.measure,
    needed: amount(row.asked),
    free: amount(row.free),
    cap: amountOrNull(row.cap),
    spent: amountOrNull(row.spent),
    held: amountOrNull(row.held),
    resetsAt: row.resets_at?.toISOString() ?? null,
  }
}

export function attemptReport(row: StepRow): AttemptReport {
  const { plan, sums } = row
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
    bound: null,
    captured: money(sums.captured),
    released: money(sums.released),
    overage: money(sums.overage),
    corrected: money(sums.corrected),
    charged: money(sums.charged),
    certainty: sums.certainty,
    use: sums.use,
    tokens: usageSchema.parse(row.usage) ?? null,
    worstCase: worstCaseReport(plan),
    sentAt: row.at.toISOString(),
    resolvedAt: row.resolvedAt?.toISOString() ?? null,
    transfers: [...sums.transfers],
  }
}

function worstCaseReport(plan: Plan): AttemptReport['worstCase'] {
  const { inputTokenBound, bound } = plan
  return {
    inputTokens: inputTokenBound,
    inputBy: bound?.by ?? 'bytes',
    outputTokens: outputBoundOf(plan),
    images: bound?.images ?? 0,
    clampedFrom: bound?.clampedFrom ?? null,
    distrustPpm: bound?.distrustPpm ?? 0,
  }
}
