import type { Page } from '#contracts/api-page.ts'
import type { RunSummary, RunView } from '#contracts/api-run.ts'
import type { BalanceClass } from '#contracts/names.ts'
import { moneyStopSchema, runOptionsSchema } from '#contracts/stored.ts'
import { toAmount } from '#domain/money.ts'
import type { RunState } from '#domain/run-states.ts'
import { sql, type Kysely, type Selectable } from 'kysely'
import type { Scope } from './database.ts'
import { openQuestions } from './run-question.ts'
import type { Database } from './schema.ts'
import { pageBy } from './page.ts'

const SUMMARY_COLUMNS = Object.freeze([
  'run.id',
  'run.agent',
  'run.model',
  'run.state',
  'run.reason',
  'run.detail',
  'run.created_at',
  'run.started_at',
  'run.finished_at',
] as const)

type SummaryRow = Pick<
  Selectable<Database['run']>,
  'id' | 'agent' | 'model' | 'state' | 'reason' | 'detail' | 'created_at' | 'started_at' | 'finished_at'
>

export interface RunFilter {
  readonly state?: RunState | undefined
  readonly agent?: string | undefined
  readonly model?: string | undefined
  readonly from?: string | undefined
  readonly to?: string | undefined
}

/** A place is an id. */
export async function listRuns(
  db: Kysely<Database>,
  scope: Scope,
  { filter, page }: { readonly filter: RunFilter; readonly page: Page },
): Promise<readonly RunSummary[]> {
  const { state, agent, model, from, to } = filter
  const rows = await db
    .selectFrom('run')
    .select(SUMMARY_COLUMNS)
    .where('project_id', '=', scope.projectId)
    .where(pageBy(sql.ref('id'), page).follows)
    .$if(state !== undefined, (query) => query.where('state', '=', state ?? 'queued'))
    .$if(agent !== undefined, (query) => query.where('agent', '=', agent ?? ''))
    .$if(model !== undefined, (query) => query.where('model', '=', model ?? ''))
    .$if(from !== undefined, (query) => query.where(sql<boolean>`created_at >= ${from}::timestamptz`))
    .$if(to !== undefined, (query) => query.where(sql<boolean>`created_at < ${to}::timestamptz`))
    .orderBy('id', page.order)
    .limit(page.limit)
    .execute()
  return rows.map((row) => summaryOf(scope, row))
}

export async function getRun(db: Kysely<Database>, scope: Scope, runId: string): Promise<RunView> {
  const row = await db
    .selectFrom('run')
    .innerJoin('envelope', 'envelope.id', 'run.envelope_id')
    .select(SUMMARY_COLUMNS)
    .select(['run.input', 'run.options', 'run.output', 'run.stop', 'run.envelope_id'])
    .select(['run.parent_run_id', 'run.source_run_id', 'run.priority', 'run.deadline_at', 'run.downgraded_at'])
    .select(['run.schedule_id', 'run.admitted_at', 'run.erasing_at', 'run.output_digest'])
    .select(['envelope.gate', 'envelope.gate_reason'])
    .where('run.project_id', '=', scope.projectId)
    .where('run.id', '=', runId)
    .executeTakeFirstOrThrow()
  const options = runOptionsSchema.parse(row.options)
  return {
    ...summaryOf(scope, row),
    input: row.input,
    onExhausted: options.onExhausted,
    mayRepeat: options.mayRepeat,
    pauseDeadlineSeconds: Math.round(options.pauseDeadlineMs / 1000),
    downgrade: options.downgrade ?? null,
    limits: options.limits ?? null,
    thresholds: options.thresholds,
    wrapUpPercent: options.wrapUpPercent,
    priority: row.priority,
    parentRunId: row.parent_run_id,
    sourceRunId: row.source_run_id,
    scheduleId: row.schedule_id,
    queue: row.state === 'queued' && row.admitted_at === null ? await placeOf(db, scope, row) : null,
    deadlineAt: row.deadline_at?.toISOString() ?? null,
    downgradedAt: row.downgraded_at?.toISOString() ?? null,
    question: await openQuestion(db, scope, row.id),
    constraints: options.constraints ?? null,
    tight: options.tight,
    reuse: options.reuse ?? null,
    envelope: {
      id: row.envelope_id,
      gate: row.gate,
      gateReason: row.gate_reason,
      pockets: await pocketsOf(db, scope, row.id),
    },
    stop: stopOf(row.stop),
    output: row.output,
    erasedAt: row.erasing_at?.toISOString() ?? null,
    outputSha256: row.output_digest?.toString('hex') ?? null,
  }
}

/** Its place among the runs of its project that wait; null for a child, which needs none. */
async function placeOf(
  db: Kysely<Database>,
  scope: Scope,
  run: { readonly id: string; readonly priority: number; readonly parent_run_id: string | null },
): Promise<RunView['queue']> {
  if (run.parent_run_id !== null) return null
  const { rows } = await sql<{ before: number }>`
    select count(*)::integer as before from run
    where project_id = ${scope.projectId} and admitted_at is null and finished_at is null and parent_run_id is null
      and (priority, id) < (${run.priority}, ${run.id}::uuid)`.execute(db)
  return { position: (rows[0]?.before ?? 0) + 1 }
}

/** What the run waits to be answered, the first one asked first. */
async function openQuestion(db: Kysely<Database>, scope: Scope, runId: string): Promise<RunView['question']> {
  const [first] = await openQuestions(db, scope, runId)
  if (!first) return null
  const { path, text, choices, askedAt } = first
  return { path, text, choices: choices && [...choices], askedAt: askedAt.toISOString() }
}

interface PocketRow {
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly funded: bigint
  readonly returned: bigint
  readonly inChildren: bigint
  readonly balance: bigint
  readonly held: bigint
}

/**
 * The pockets of the run's envelopes together. What is not there any more, was not returned and is not in children was
 * spent: corrections are counted by themselves that way.
 */
async function pocketsOf(db: Kysely<Database>, scope: Scope, runId: string): Promise<RunView['envelope']['pockets']> {
  const { rows } = await sql<PocketRow>`
    with mine as materialized (
      select a.* from envelope e join account a on a.kind = 'pocket' and a.envelope_id = e.id
      where e.run_id = ${runId} and e.project_id = ${scope.projectId}
    )
    select mine.balance_class as "balanceClass", mine.currency,
      sum(mine.posted_credit - mine.posted_debit)::bigint as balance, sum(mine.pending_debit)::bigint as held,
      sum(given.funded - given.back)::bigint as funded, sum(taken.returned)::bigint as returned,
      sum(taken.carved - given.back)::bigint as "inChildren"
    from mine
    cross join lateral (
      select coalesce(sum(t.amount), 0) as funded, coalesce(sum(t.amount) filter (where t.code = 'return'), 0) as back
      from (
        select * from transfer where credit_account = mine.id and code in ('top_up', 'return')
        union all
        select * from transfer where credit_account = mine.id and code = 'carve'
      ) t where t.debit_account not in (select id from mine)
    ) given
    cross join lateral (
      select coalesce(sum(t.amount) filter (where t.code = 'carve'), 0) as carved,
        coalesce(sum(t.amount) filter (where t.code = 'return'), 0) as returned
      from (
        select * from transfer where debit_account = mine.id and code = 'return'
        union all
        select * from transfer where debit_account = mine.id and code = 'carve'
      ) t where t.credit_account not in (select id from mine)
    ) taken
    group by mine.balance_class, mine.currency order by mine.balance_class desc, mine.currency`.execute(db)
  return rows.map(({ balanceClass, currency, funded, returned, inChildren, balance, held }) => ({
    balanceClass,
    currency,
    funded: toAmount(funded, currency),
    spent: toAmount(funded - returned - inChildren - balance, currency),
    held: toAmount(held, currency),
    free: toAmount(balance - held, currency),
    returned: toAmount(returned, currency),
    inChildren: toAmount(inChildren, currency),
  }))
}

function stopOf(stored: unknown): RunView['stop'] {
  const stop = moneyStopSchema.parse(stored)
  if (!stop) return null
  const { limit, needed, free, currency } = stop
  return { limit, needed: { amount: needed, currency }, free: { amount: free, currency } }
}

function summaryOf(scope: Scope, row: SummaryRow): RunSummary {
  return {
    id: row.id,
    projectId: scope.projectId,
    agent: row.agent,
    model: row.model,
    state: row.state,
    reason: row.reason,
    detail: row.detail,
    createdAt: row.created_at.toISOString(),
    startedAt: row.started_at?.toISOString() ?? null,
    finishedAt: row.finished_at?.toISOString() ?? null,
  }
}
