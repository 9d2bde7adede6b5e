import type { RunSummary, RunView } from '#contracts/api-run.ts'
import type { BalanceClass } from '#contracts/names.ts'
import { moneyStopSchema, runOptionsSchema } from '#contracts/stored.ts'
import { toAmount } from '#domain/money.ts'
import type { RunState } from '#domain/run-states.ts'
import { sql, type Kysely, type Selectable } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

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

/** Newest first; `before` is the id of the last run of the page before. */
export async function listRuns(
  db: Kysely<Database>,
  scope: Scope,
  page: { readonly limit: number; readonly before: string | undefined; readonly state: RunState | undefined },
): Promise<readonly RunSummary[]> {
  let query = db.selectFrom('run').select(SUMMARY_COLUMNS).where('project_id', '=', scope.projectId)
  if (page.before !== undefined) query = query.where('id', '<', page.before)
  if (page.state !== undefined) query = query.where('state', '=', page.state)
  const rows = await query.orderBy('id', 'desc').limit(page.limit).execute()
  return rows.map((row) => summaryOf(scope, row))
}

export async function getRun(db: Kysely<Database>, scope: Scope, runId: string): Promise<RunView> {
  const row = await db
    .selectFrom('run')
    .innerJoin('envelope', 'envelope.id', 'run.envelope_id')
    .select(SUMMARY_COLUMNS)
    .select(['run.input', 'run.options', 'run.output', 'run.stop', 'run.envelope_id'])
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
    envelope: {
      id: row.envelope_id,
      gate: row.gate,
      gateReason: row.gate_reason,
      pockets: await pocketsOf(db, scope, row.envelope_id),
    },
    stop: stopOf(row.stop),
    output: row.output,
  }
}

interface PocketRow {
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly funded: bigint
  readonly returned: bigint
  readonly balance: bigint
  readonly held: bigint
}

/** What is not there any more and was not returned was spent: corrections are counted by themselves that way. */
async function pocketsOf(
  db: Kysely<Database>,
  scope: Scope,
  envelopeId: string,
): Promise<RunView['envelope']['pockets']> {
  const { rows } = await sql<PocketRow>`
    select a.balance_class as "balanceClass", a.currency, a.posted_credit - a.posted_debit as balance,
      a.pending_debit as held,
      coalesce(sum(t.amount) filter (where t.code = 'top_up'), 0)::bigint as funded,
      coalesce(sum(t.amount) filter (where t.code = 'return'), 0)::bigint as returned
    from account a
    join envelope e on e.id = a.envelope_id
    left join transfer t on t.run_id = e.run_id and t.code in ('top_up', 'return') and a.id in (t.debit_account, t.credit_account)
    where a.project_id = ${scope.projectId} and a.kind = 'pocket' and a.envelope_id = ${envelopeId}
    group by a.id order by a.balance_class desc, a.currency`.execute(db)
  return rows.map(({ balanceClass, currency, funded, returned, balance, held }) => ({
    balanceClass,
    currency,
    funded: toAmount(funded, currency),
    spent: toAmount(funded - returned - balance, currency),
    held: toAmount(held, currency),
    free: toAmount(balance - held, currency),
    returned: toAmount(returned, currency),
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
