import { EXTERNAL_AGENT } from '#contracts/agents.ts'
import { foldPocket, holdAccuracy } from '#domain/journal.ts'
import { toAmount } from '#domain/money.ts'
import type { CallReport, LikelyRepeats, Report } from '#contracts/report.ts'
import { moneyStopSchema } from '#contracts/stored.ts'
import type { Kysely } from 'kysely'
import { attemptMoney, type AttemptMoney } from './attempt-money.ts'
import { readCalls } from './call-read.ts'
import type { Scope } from './database.ts'
import { readInstant } from './instant.ts'
import { likelyPredecessors, repeatGroups } from './likely-repeats.ts'
import { readRunJournal, readSnapshot, type RunEntry } from './journal.ts'
import { contextOf } from './report-context.ts'
import { firstOf, totalsOf } from './report-totals.ts'
import { childrenOf, treeTotals } from './report-tree.ts'
import { runThen, viewJournal, type ReportView } from './report-view.ts'
import type { Database } from './schema.ts'

/** What a run cost, as far as it is known now. Undefined when there is no such run. */
export async function readReport(db: Kysely<Database>, scope: Scope, runId: string): Promise<Report | undefined> {
  const report = await readReportAt(db, scope, { runId, view: 'now' })
  return typeof report === 'string' ? undefined : report
}

/** `before_run`: it did not exist yet. `in_future`: the instant has not come yet by the database's clock. */
export type NoReport = 'unknown_run' | 'unknown_revision' | 'in_future' | 'before_run'

/**
 * What a run cost, now or then. Every amount is folded from the journal; the other tables only lend names. Read in short
 * statements, for a run may have any number of calls: the journal is that of one snapshot, and of calls and attempts only
 * what it knows is told.
 */
export async function readReportAt(
  db: Kysely<Database>,
  scope: Scope,
  { runId, view }: { readonly runId: string; readonly view: ReportView },
): Promise<Report | NoReport> {
  const run = await runRow(db, scope, runId)
  if (!run) return 'unknown_run'
  const snapshot = await readSnapshot(db)
  const asked = await readInstant(db, view !== 'now' && 'asOf' in view ? view.asOf : undefined)
  if (!asked) return 'in_future'
  const seen = viewJournal(await readRunJournal(db, scope, { runId, snapshot }), view, asked)
  if (!seen) return 'unknown_revision'
  const { entries, upTo } = seen
  const instant = upTo === undefined ? asked : await readInstant(db, upTo)
  const then = upTo === undefined ? run : await runThen(db, scope, { runId, at: upTo })
  if (!then || !instant) return 'before_run'
  const attempts = attemptMoney(entries)
  const calls = await readCalls(db, scope, { of: { runId }, attempts, seen })
  const totals = totalsOf(entries, attempts)
  const children = await childrenOf(db, scope, { runId, snapshot, at: upTo })
  return {
    runId,
    parentRunId: run.parent_run_id,
    projectId: run.project_id,
    apiKeyId: run.api_key_id,
    agent: run.agent,
    model: run.model,
    state: then.state,
    reason: then.reason,
    detail: then.detail,
    stop: stopOf(then.stop),
    asOf: instant.at,
    final: instant.final,
    revision: entries.length,
    envelope: { id: run.envelope_id, gate: then.gate, pockets: pocketsOf(entries) },
    totals,
    counts: countsOf(calls),
    holds: holdsOf(attempts),
    context: contextOf(calls),
    children: [...children],
    tree: { totals: treeTotals(totals, children) },
    calls: [...calls],
    likelyRepeats: run.agent === EXTERNAL_AGENT ? await repeatsIn(db, scope, { runId, entries, calls }) : [],
  }
}

/** Of a program that is not ours: its client may send by itself what was answered, or given up. */
async function repeatsIn(
  db: Kysely<Database>,
  scope: Scope,
  of: { readonly runId: string; readonly entries: readonly RunEntry[]; readonly calls: readonly CallReport[] },
): Promise<LikelyRepeats> {
  const { runId, entries, calls } = of
  const ids = calls.map(({ id }) => id)
  const predecessors = await likelyPredecessors(db, scope, { of: { runId }, from: '-infinity', to: 'infinity' })
  return repeatGroups(ids, { predecessors, entries: Map.groupBy(entries, ({ callId }) => callId) })
}

function stopOf(stored: unknown): Report['stop'] {
  const stop = moneyStopSchema.parse(stored)
  if (!stop) return null
  const { limit, needed, free, currency } = stop
  return { limit, needed: { amount: needed, currency }, free: { amount: free, currency } }
}

/** The calls of a run, each with its attempts. Undefined when there is no such run. */
export async function readRunCalls(
  db: Kysely<Database>,
  scope: Scope,
  runId: string,
): Promise<readonly CallReport[] | undefined> {
  if (!(await runRow(db, scope, runId))) return undefined
  const snapshot = await readSnapshot(db)
  const journal = await readRunJournal(db, scope, { runId, snapshot })
  return readCalls(db, scope, { of: { runId }, attempts: attemptMoney(journal) })
}

function holdsOf(attempts: AttemptMoney): Report['holds'] {
  const accuracy = holdAccuracy([...attempts.values()].map(({ sums }) => sums))
  if (!accuracy) return null
  const share = (thousandths: bigint) => `${thousandths / 1_000n}.${(thousandths % 1_000n).toString().padStart(3, '0')}`
  const { p50, p95, most } = accuracy
  return { attempts: accuracy.attempts, p50: share(p50), p95: share(p95), most: share(most) }
}

function pocketsOf(journal: readonly RunEntry[]): Report['envelope']['pockets'] {
  const moved = journal.filter((entry) => entry.viaPocket)
  return [...Map.groupBy(moved, (entry) => entry.money).values()].map((entries) => {
    const { balanceClass, currency } = firstOf(entries)
    const { funded, spent, held, returned, inChildren } = foldPocket(entries)
    const money = (nano: bigint) => toAmount(nano, currency)
    const free = funded - spent - held - returned - inChildren
    return {
      balanceClass,
      currency,
      funded: money(funded),
      spent: money(spent),
      held: money(held),
      returned: money(returned),
      inChildren: money(inChildren),
      free: money(free),
    }
  })
}

function countsOf(calls: readonly CallReport[]): Report['counts'] {
  const all = calls.flatMap((call) => call.attempts)
  const attempts = all.filter((each) => each.kind === 'attempt')
  return {
    calls: calls.length,
    attempts: attempts.length,
    retries: attempts.filter((each) => each.why === 'retry').length,
    fallbacks: attempts.filter((each) => each.why === 'fallback').length,
    refusals: all.length - attempts.length,
    lost: attempts.filter((each) => each.outcome === 'lost').length,
    reused: calls.filter((call) => call.reusedFrom !== null).length,
  }
}

function runRow(db: Kysely<Database>, scope: Scope, runId: string) {
  return db
    .selectFrom('run')
    .innerJoin('envelope', 'envelope.id', 'run.envelope_id')
    .selectAll('run')
    .select('envelope.gate')
    .where('run.project_id', '=', scope.projectId)
    .where('run.id', '=', runId)
    .executeTakeFirst()
}
