import type { Kysely } from 'kysely'
import type { Scope } from './database.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'

export interface Payload {
  readonly id: string
  readonly runId: string | null
  readonly kind: 'request' | 'answer' | 'tool' | 'output'
  readonly body: unknown
}

/** Stores what is too large for workflow history. Storing the same id again changes nothing. */
export async function putPayload(db: Kysely<Database>, scope: Scope, payload: Payload): Promise<void> {
  await db
    .insertInto('payload')
    .values({
      id: payload.id,
      project_id: scope.projectId,
      run_id: payload.runId,
      kind: payload.kind,
      body: json(payload.body),
    })
    .onConflict((conflict) => conflict.column('id').doNothing())
    .execute()
}

export async function getPayload(db: Kysely<Database>, scope: Scope, id: string): Promise<Payload | undefined> {
  const row = await db
    .selectFrom('payload')
    .select(['id', 'run_id', 'kind', 'body'])
    .where('project_id', '=', scope.projectId)
    .where('id', '=', id)
    .executeTakeFirst()
  return row && { id: row.id, runId: row.run_id, kind: row.kind, body: row.body }
}
