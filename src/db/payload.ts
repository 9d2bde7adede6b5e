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

/** As it is stored: without its body once that is erased. */
export type StoredPayload = Omit<Payload, 'body'> &
  ({ readonly isErased: false; readonly body: unknown } | { readonly isErased: true })

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

export async function getPayload(db: Kysely<Database>, scope: Scope, id: string): Promise<StoredPayload | undefined> {
  const row = await db
    .selectFrom('payload')
    .select(['id', 'run_id', 'kind', 'body', 'erased_at'])
    .where('project_id', '=', scope.projectId)
    .where('id', '=', id)
    .executeTakeFirst()
  if (!row) return undefined
  const { run_id: runId, kind, body } = row
  return row.erased_at === null ? { id, runId, kind, isErased: false, body } : { id, runId, kind, isErased: true }
}
