import type { Kysely, Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { newId } from './ids.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'

export type CommandKind = Database['command']['kind']

/** Something a person asked of a run, to be told to its workflow. */
export interface WaitingCommand {
  readonly id: string
  readonly runId: string
  readonly kind: CommandKind
  readonly agent: string
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

/** Oldest first, of any tenant: for the dispatcher. `except` are those it will not try yet. */
export async function waitingCommands(
  db: Kysely<Database>,
  options: { readonly limit: number; readonly except: readonly string[] },
): Promise<readonly WaitingCommand[]> {
  const rows = await db
    .selectFrom('command')
    .innerJoin('run', 'run.id', 'command.run_id')
    .select(['command.id', 'command.run_id', 'command.kind', 'run.agent'])
    .where('command.delivered_at', 'is', null)
    .$if(options.except.length > 0, (query) => query.where('command.id', 'not in', [...options.except]))
    .orderBy('command.created_at')
    .limit(options.limit)
    .execute()
  return rows.map((row) => ({ id: row.id, runId: row.run_id, kind: row.kind, agent: row.agent }))
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
