import { foldAttempt, foldPocket, spendOf, sum } from '#domain/journal.ts'
import { toAmount } from '#domain/money.ts'
import type { CallReport, CallStory, Report } from '#contracts/report.ts'
import { moneyStopSchema } from '#contracts/stored.ts'
import type { Kysely } from 'kysely'
import { readCalls } from './call-read.ts'
import type { Scope } from './database.ts'
import { readRunJournal, type RunEntry } from './journal.ts'
import type { Database } from './schema.ts'

/**
 * What a run cost. Every amount is folded from the journal; the other tables only lend names. One repeatable-read
 * transaction, so that all parts are of the same instant.
 */
export async function readReport(db: Kysely<Database>, scope: Scope, runId: string): Promise<Report | undefined> {
  return atOneInstant(db, async (trx) => {
    const run = await runRow(trx, scope, runId)
    if (!run) return undefined
    const journal = await readRunJournal(trx, scope, runId)
    const calls = await readCalls(trx, scope, { runId, journal })
    const stop = moneyStopSchema.parse(run.stop)
    return {
      runId,
      projectId: run.project_id,
      apiKeyId: run.api_key_id,
      agent: run.agent,
      model: run.model,
      state: run.state,
      reason: run.reason,
      detail: run.detail,
      stop: stop && {
        limit: stop.limit,
        needed: { amount: stop.needed, currency: stop.currency },
        free: { amount: stop.free, currency: stop.currency },
      },
      revision: journal.length,
      envelope: { id: run.envelope_id, gate: run.gate, pockets: pocketsOf(journal) },
      totals: totalsOf(journal),
      counts: countsOf(calls),
      calls: [...calls],
    }
  })
}

/** The calls of a run, each with its attempts. Undefined when there is no such run. */
export async function readRunCalls(
  db: Kysely<Database>,
  scope: Scope,
  runId: string,
): Promise<readonly CallReport[] | undefined> {
  return atOneInstant(db, async (trx) => {
    if (!(await runRow(trx, scope, runId))) return undefined
    return readCalls(trx, scope, { runId, journal: await readRunJournal(trx, scope, runId) })
  })
}

/** One call's story: who asked, what for, what served it, what was tried, what paid, what bound it, and the proof. */
export async function readCallStory(
  db: Kysely<Database>,
  scope: Scope,
  callId: string,
): Promise<CallStory | undefined> {
  return atOneInstant(db, async (trx) => {
    const row = await callRow(trx, scope, callId)
    if (!row) return undefined
    const journal = (await readRunJournal(trx, scope, row.run_id)).filter((entry) => entry.callId === callId)
    const [call] = await readCalls(trx, scope, { runId: row.run_id, callId, journal })
    if (!call) return undefined
    const served = call.attempts.find((attempt) => attempt.number === call.answeredBy)
    return {
      runId: row.run_id,
      projectId: scope.projectId,
      apiKey: { id: row.api_key_id, name: row.key_name, hint: row.key_hint },
      project: { id: scope.projectId, name: row.project_name },
      asked: {
        model: call.model,
        path: call.path,
        catalogVersion: row.catalog_version,
        at: row.created_at.toISOString(),
      },
      served: served
        ? {
            provider: served.provider,
            upstreamModel: served.upstreamModel,
            route: served.route,
            attempt: served.number,
          }
        : null,
      paid: totalsOf(journal).map((total) => ({ balanceClass: total.balanceClass, charged: total.spent })),
      bound: {
        envelopeId: row.envelope_id,
        gate: row.gate,
        verdict: call.state === 'answered' ? 'allowed' : call.stopReason === null ? 'in_flight' : 'stopped',
        reason: call.stopReason,
      },
      call,
    }
  })
}

function atOneInstant<Result>(db: Kysely<Database>, read: (trx: Kysely<Database>) => Promise<Result>): Promise<Result> {
  return db.transaction().setIsolationLevel('repeatable read').setAccessMode('read only').execute(read)
}

function pocketsOf(journal: readonly RunEntry[]): Report['envelope']['pockets'] {
  const moved = journal.filter((entry) => entry.viaPocket)
  return [...Map.groupBy(moved, (entry) => entry.money).values()].map((entries) => {
    const { balanceClass, currency } = firstOf(entries)
    const { funded, spent, held, returned } = foldPocket(entries)
    const money = (nano: bigint) => toAmount(nano, currency)
    const free = funded - spent - held - returned
    return {
      balanceClass,
      currency,
      funded: money(funded),
      spent: money(spent),
      held: money(held),
      returned: money(returned),
      free: money(free),
    }
  })
}

/** The labels are an attempt's last ones: a correction turns what was unknown into what is known. */
function totalsOf(journal: readonly RunEntry[]): Report['totals'] {
  return [...Map.groupBy(journal, (entry) => entry.money).values()].map((entries) => {
    const { balanceClass, currency } = firstOf(entries)
    const attempts = [...Map.groupBy(entries, (entry) => `${entry.callId}:${entry.attempt}`).values()].map(foldAttempt)
    const labelled = (matches: (attempt: (typeof attempts)[number]) => boolean) =>
      toAmount(sum(attempts.filter(matches).map((attempt) => attempt.charged)), currency)
    return {
      balanceClass,
      currency,
      spent: toAmount(sum(entries.map(spendOf)), currency),
      useful: labelled((attempt) => attempt.use === 'useful'),
      wasted: labelled((attempt) => attempt.use === 'wasted'),
      billed: labelled((attempt) => attempt.certainty === 'billed'),
      estimated: labelled((attempt) => attempt.certainty === 'estimated'),
      unknown: labelled((attempt) => attempt.certainty === 'unknown'),
      held: toAmount(foldPocket(entries).held, currency),
    }
  })
}

function firstOf(entries: readonly RunEntry[]): RunEntry {
  const [entry] = entries
  if (!entry) throw new Error('a group has an entry')
  return entry
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

function callRow(db: Kysely<Database>, scope: Scope, callId: string) {
  return db
    .selectFrom('call')
    .innerJoin('envelope', 'envelope.id', 'call.envelope_id')
    .innerJoin('project', 'project.id', 'call.project_id')
    .leftJoin('api_key', 'api_key.id', 'call.api_key_id')
    .selectAll('call')
    .select(['envelope.gate', 'project.name as project_name', 'api_key.name as key_name', 'api_key.hint as key_hint'])
    .where('call.project_id', '=', scope.projectId)
    .where('call.id', '=', callId)
    .executeTakeFirst()
}
