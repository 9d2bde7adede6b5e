import type { Pockets } from '#contracts/api-money.ts'
import { Problem } from '#contracts/codes.ts'
import { runOptionsSchema, startBodySchema, type RunOptions } from '#contracts/stored.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import type { RunSource } from './run-start.ts'
import type { Database } from './schema.ts'

/** Most paths of a run that a refusal lists. */
const MAX_PATHS = 50

/** What a run was started with: what repeats it starts from that. */
export interface StartedRun {
  readonly agent: string
  readonly model: string
  readonly input: unknown
  readonly options: RunOptions
  readonly priority: number
  /** Undefined for a child: its money was its parent's. */
  readonly pockets: Pockets | undefined
}

export async function startedRun(db: Kysely<Database>, scope: Scope, runId: string): Promise<StartedRun> {
  const row = await db
    .selectFrom('run')
    .leftJoin('command', (join) => join.onRef('command.run_id', '=', 'run.id').on('command.kind', '=', 'start'))
    .select(['run.agent', 'run.model', 'run.input', 'run.options', 'run.priority', 'command.body'])
    .where('run.project_id', '=', scope.projectId)
    .where('run.id', '=', runId)
    .executeTakeFirstOrThrow()
  const { agent, model, input, priority } = row
  const { pockets } = startBodySchema.parse(row.body ?? {})
  return { agent, model, input, options: runOptionsSchema.parse(row.options), priority, pockets }
}

/**
 * Keeps the run's answers until its fork is over. The last thing of the fork's transaction: whoever ends a run locks its
 * money before its row.
 *
 * @throws Problem `answer_not_stored`
 */
export async function holdSource(trx: Transaction<Database>, scope: Scope, runId: string): Promise<void> {
  const { rows } = await sql<{ isHeld: boolean }>`
    select hold_source(${scope.projectId}, ${runId}) as "isHeld"`.execute(trx)
  if (rows[0]?.isHeld !== true) throw notStored()
}

function notStored(): Problem {
  return new Problem(
    'answer_not_stored',
    'What the run was answered is not stored any more: its project keeps no more.',
    {
      remedy: 'Run it again instead (rerun): its calls are made, and paid, anew.',
    },
  )
}

/**
 * Where a run is forked: everything that was opened before its first call of a step is used again; without a step,
 * everything until now.
 *
 * @param fork.from a path, or what the step's paths begin with
 * @throws Problem `unknown_step`, `answer_not_stored`
 */
export async function forkPoint(
  db: Kysely<Database>,
  scope: Scope,
  fork: { readonly runId: string; readonly from: string | undefined },
): Promise<RunSource> {
  const { runId, from } = fork
  const { rows } = await sql<{ at: string | null; isErased: boolean }>`
    select r.erasing_at is not null as "isErased", case when ${from ?? null}::text is null then clock_timestamp() else (
      select min(c.created_at) from call c
      where c.run_id = ${runId} and c.project_id = ${scope.projectId}
        and (c.path = ${from ?? ''} or starts_with(c.path, ${`${from}/`}))
    ) end::text as at
    from run r where r.id = ${runId} and r.project_id = ${scope.projectId}`.execute(db)
  if (rows[0]?.isErased) throw notStored()
  const at = rows[0]?.at
  if (at != null) return { runId, reuseBefore: at }
  const paths = await pathsOf(db, scope, runId)
  throw new Problem('unknown_step', `The run made no call at ${from}.`, {
    remedy: paths.length > 0 ? `Its calls are at: ${paths.join(', ')}.` : 'It made no call yet: run it again instead.',
    extra: { paths },
  })
}

/** In the order of their first calls. */
async function pathsOf(db: Kysely<Database>, scope: Scope, runId: string): Promise<readonly string[]> {
  const rows = await db
    .selectFrom('call')
    .select('path')
    .where('project_id', '=', scope.projectId)
    .where('run_id', '=', runId)
    .groupBy('path')
    .orderBy((eb) => eb.fn.min('created_at'))
    .limit(MAX_PATHS)
    .execute()
  return rows.map((row) => row.path)
}

/** What a tool gave once, unless it is not stored any more. */
export type ForkedPayload = { readonly isErased: false; readonly body: unknown } | { readonly isErased: true }

/** What a tool gave the run that this one was forked from, if that was before the fork's point. */
export async function forkedPayload(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly runId: string; readonly idIn: (sourceRunId: string) => string },
): Promise<ForkedPayload | undefined> {
  const fork = await db
    .selectFrom('run')
    .select('source_run_id')
    .where('project_id', '=', scope.projectId)
    .where('id', '=', request.runId)
    .where('reuse_before', 'is not', null)
    .executeTakeFirst()
  if (fork?.source_run_id == null) return undefined
  const id = request.idIn(fork.source_run_id)
  const { rows } = await sql<{ body: unknown; isErased: boolean }>`
    select p.body, p.erased_at is not null as "isErased" from payload p join run f on f.id = ${request.runId} and p.created_at < f.reuse_before
    where p.id = ${id} and p.project_id = ${scope.projectId}`.execute(db)
  const [row] = rows
  return row && (row.isErased ? { isErased: true } : { isErased: false, body: row.body })
}
