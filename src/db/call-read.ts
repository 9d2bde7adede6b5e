import type { CallReport } from '#contracts/report.ts'
import { planSchema } from '#contracts/stored.ts'
import type { AttemptSums } from '#domain/journal.ts'
import { sql, type Kysely } from 'kysely'
import { setImmediate } from 'node:timers/promises'
import type { AttemptMoney } from './attempt-money.ts'
import { attemptReport, refusalReport, type StepRow } from './attempt-report.ts'
import type { Scope } from './database.ts'
import { instantText } from './instant.ts'
import type { Database } from './schema.ts'

/** The calls of a run, or those that are named, whether they are of a run or not. */
export type CallFilter = { readonly runId: string } | { readonly callIds: readonly string[] }

/** How far to look: what came later is left out. */
export interface CallView {
  /** Undefined: all there is. */
  readonly upTo: string | undefined
  /** Attempts (`call:number`) whose usage is known by a later correction only. */
  readonly correctedLater: ReadonlySet<string>
}

const NOW: CallView = Object.freeze({ upTo: undefined, correctedLater: new Set<string>() })

/** Calls of one read, with their attempts and refusals: some tenths of a second. */
const PAGE = 5_000

/**
 * Calls with all their attempts and refusals; every amount is folded from the given journal. In as many reads
 * as it takes: what an attempt became after the journal was read is left out.
 */
export async function readCalls(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly of: CallFilter; readonly attempts: AttemptMoney; readonly seen?: CallView },
): Promise<readonly CallReport[]> {
  const view = { attempts: request.attempts, seen: request.seen ?? NOW }
  const filter = { of: request.of, seen: view.seen }
  const reports: CallReport[] = []
  let page = await readPage(db, scope, { ...filter, after: undefined })
  for (;;) {
    const after = page.calls.length < PAGE ? undefined : page.calls.at(-1)
    // The database reads the next page while this one is put together.
    const [next] = await Promise.all([
      after && readPage(db, scope, { ...filter, after }),
      setImmediate(page).then((read) => reports.push(...reportsOf(read, view))),
    ])
    if (!next) return reports
    page = next
  }
}

interface Page {
  readonly calls: readonly CallRow[]
  readonly sent: readonly StepRow[]
  readonly refused: readonly StepRow[]
}

async function readPage(db: Kysely<Database>, scope: Scope, filter: PageFilter): Promise<Page> {
  const calls = await callRows(db, scope, filter)
  const ids = calls.map(({ id }) => id)
  const sent = await attemptRows(db, scope, ids)
  return { calls, sent, refused: await refusalRows(db, scope, { ids, seen: filter.seen }) }
}

interface View {
  readonly attempts: AttemptMoney
  readonly seen: CallView
}

function reportsOf({ calls, sent, refused }: Page, view: View): readonly CallReport[] {
  const known = sent.flatMap((row) => attemptSeen(row, view) ?? [])
  const stepsOf = Map.groupBy([...known, ...refused], ({ callId }) => callId)
  return calls.map((call) => {
    const own = (stepsOf.get(call.id) ?? []).toSorted((a, b) => a.number - b.number)
    const isAnswered =
      call.is_answered &&
      (call.reused_from !== null || own.some((step) => step.number === call.answer_attempt && step.outcome !== null))
    return {
      id: call.id,
      path: call.path,
      model: call.model,
      state: isAnswered ? 'answered' : 'open',
      answeredBy: isAnswered ? call.answer_attempt : null,
      reusedFrom: isAnswered ? call.reused_from : null,
      stopReason: call.stop_reason,
      stopDetail: call.stop_detail,
      skipped: skippedBy(own),
      attempts: own.map((step) => (step.kind === 'refusal' ? refusalReport(step) : attemptReport(step))),
    }
  })
}

/** Routes that any of its attempts could not take, each reason once. */
function skippedBy(steps: readonly StepRow[]): CallReport['skipped'] {
  const all = steps.flatMap(({ plan }) => plan.skipped)
  return [...new Map(all.map((each) => [`${each.route} ${each.reason}`, each])).values()]
}

/** An attempt as the journal knows it: not yet sent, still in flight, or with what was known before its correction. */
function attemptSeen(row: StepRow, { attempts, seen }: View): StepRow | undefined {
  const key = `${row.callId}:${row.number}`
  const sums = attempts.get(key)?.sums
  if (!sums) return undefined
  if (sums.open) return { ...row, sums, outcome: null, detail: null, usage: null, resolvedAt: null }
  return seen.correctedLater.has(key) ? { ...row, sums, usage: null } : { ...row, sums }
}

interface CallRow {
  readonly id: string
  readonly path: string
  readonly model: string
  readonly answer_attempt: number | null
  readonly reused_from: string | null
  readonly stop_reason: string | null
  readonly stop_detail: string | null
  readonly is_answered: boolean
  /** To the microsecond, as a page ends in the middle of a millisecond. */
  readonly at: string
}

interface PageFilter {
  readonly of: CallFilter
  readonly seen: CallView
  readonly after: CallRow | undefined
}

/** Why a call stopped is not dated: looking back, it is told as it is now. */
async function callRows(db: Kysely<Database>, scope: Scope, filter: PageFilter): Promise<readonly CallRow[]> {
  const { of, after, seen } = filter
  const upTo = sql`coalesce(${seen.upTo ?? null}::timestamptz, 'infinity')`
  const isAsked = 'runId' in of ? sql`c.run_id = ${of.runId}` : sql`c.id = any(${[...of.callIds]}::uuid[])`
  const isNext = after ? sql`(c.created_at, c.id) > (${after.at}::timestamptz, ${after.id}::uuid)` : sql`true`
  const { rows } = await sql<CallRow>`
    select c.id, c.path, c.model, c.answer_attempt, c.reused_from, c.stop_reason, c.stop_detail,
      c.state = 'answered' and c.answered_at <= ${upTo} as is_answered, ${instantText(sql`c.created_at`)} as at
    from call c
    where c.project_id = ${scope.projectId} and ${isAsked} and c.created_at <= ${upTo} and ${isNext}
    order by c.created_at, c.id limit ${PAGE}`.execute(db)
  return rows
}

/** A refusal moved no money, and neither did an attempt that the journal does not know. */
const NO_SUMS: AttemptSums = Object.freeze({
  held: 0n,
  captured: 0n,
  released: 0n,
  overage: 0n,
  corrected: 0n,
  charged: 0n,
  certainty: null,
  use: null,
  open: false,
  transfers: [],
})

async function attemptRows(db: Kysely<Database>, scope: Scope, ids: readonly string[]): Promise<readonly StepRow[]> {
  const rows = await db
    .selectFrom('attempt')
    .select(['call_id', 'number', 'plan', 'outcome', 'detail', 'usage', 'held', 'sent_at', 'resolved_at'])
    .where('project_id', '=', scope.projectId)
    .where(isOneOf(ids))
    .execute()
  return rows.map((row) => ({
    kind: 'attempt',
    callId: row.call_id,
    number: row.number,
    plan: planSchema.parse(row.plan),
    sums: NO_SUMS,
    outcome: row.outcome,
    detail: row.detail,
    usage: row.usage,
    asked: row.held,
    free: null,
    refusal: null,
    at: row.sent_at,
    resolvedAt: row.resolved_at,
  }))
}

async function refusalRows(
  db: Kysely<Database>,
  scope: Scope,
  { ids, seen }: { readonly ids: readonly string[]; readonly seen: CallView },
): Promise<readonly StepRow[]> {
  const rows = await db
    .selectFrom('refusal')
    .selectAll()
    .where('project_id', '=', scope.projectId)
    .where(isOneOf(ids))
    .where('recorded_at', '<=', sql<Date>`coalesce(${seen.upTo ?? null}::timestamptz, 'infinity')`)
    .execute()
  return rows.map((row) => ({
    kind: 'refusal',
    callId: row.call_id,
    number: row.attempt,
    plan: planSchema.parse(row.plan),
    sums: NO_SUMS,
    outcome: 'hold_refused',
    detail: null,
    usage: null,
    asked: row.asked,
    free: row.free,
    refusal: row,
    at: row.recorded_at,
    resolvedAt: row.recorded_at,
  }))
}

/** As one parameter: the protocol has room for 65,535. */
function isOneOf(ids: readonly string[]) {
  return sql<boolean>`call_id = any(${ids}::uuid[])`
}
