import { sql, type Kysely, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { newId } from './ids.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'

export type CommandKind = Database['command']['kind']

/** Something a person asked of a run, to be told to its workflow. */
export interface WaitingCommand {
  readonly id: string
  readonly kind: CommandKind
  readonly run: CommandedRun
}

/** What a workflow is started with, and what people see of it. */
export interface CommandedRun {
  readonly id: string
  readonly projectId: string
  readonly agent: string
  readonly model: string
  readonly envelopeId: string
  /** 1 is served first. */
  readonly priority: number
}

export async function addCommand(
  trx: Transaction<Database>,
  scope: Scope,
  command: { readonly runId: string; readonly kind: CommandKind; readonly body: unknown; readonly nowMs: number },
): Promise<void> {
  await trx
    .insertInto('command')
    .values({
      id: newId(command.nowMs),
      project_id: scope.projectId,
      run_id: command.runId,
      kind: command.kind,
      body: json(command.body),
      delivered_at: null,
    })
    .execute()
}

/**
 * Gives waiting runs the places that are free, at most so many; how many that were. By priority, then projects in turns,
 * then age. Any number of processes may ask at once: no project ever has more at work than it may.
 */
export async function admitRuns(db: Kysely<Database>, limit: number): Promise<number> {
  const { rows } = await sql`select admit_runs(${limit})`.execute(db)
  return rows.length
}

/**
 * Oldest first, of any tenant: for the dispatcher. Starts only of runs that have a place. `except` are those it will not
 * try yet.
 */
export async function waitingCommands(
  db: Kysely<Database>,
  options: { readonly limit: number; readonly except: readonly string[] },
): Promise<readonly WaitingCommand[]> {
  const rows = await db
    .selectFrom('command')
    .innerJoin('run', 'run.id', 'command.run_id')
    .select(['command.id', 'command.run_id', 'command.kind'])
    .select(['run.agent', 'run.model', 'run.project_id', 'run.envelope_id', 'run.priority'])
    .where('command.delivered_at', 'is', null)
    .where((eb) =>
      eb.or([
        eb('command.kind', '<>', 'start'),
        eb('run.admitted_at', 'is not', null),
        eb('run.parent_run_id', 'is not', null),
      ]),
    )
    .$if(options.except.length > 0, (query) => query.where('command.id', 'not in', [...options.except]))
    .orderBy('command.created_at')
    .limit(options.limit)
    .execute()
  return rows.map((row) => ({
    id: row.id,
    kind: row.kind,
    run: {
      id: row.run_id,
      projectId: row.project_id,
      agent: row.agent,
      model: row.model,
      envelopeId: row.envelope_id,
      priority: row.priority,
    },
  }))
}

/** Whoever is first to say so sets the time; delivering twice does no harm. */
export async function markDelivered(db: Kysely<Database>, id: string): Promise<void> {
  await db
    .updateTable('command')
    .set((eb) => ({ delivered_at: eb.fn<Date>('clock_timestamp') }))
    .where('id', '=', id)
    .where('delivered_at', 'is', null)
    .execute()
}
