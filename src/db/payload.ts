import { sql, type Kysely, type RawBuilder } from 'kysely'
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

/**
 * Stores what is too large for workflow history. Storing the same id again changes nothing. Of a run that is given up only
 * the digest is kept: whoever slept for so long that nobody waited for it writes no text that nothing would erase.
 */
export async function putPayload(db: Kysely<Database>, scope: Scope, payload: Payload): Promise<void> {
  await sql`
    insert into payload (id, project_id, run_id, kind, body, digest, erased_at)
    select ${payload.id}, ${scope.projectId}, ${payload.runId}, ${payload.kind}, case when not given_up then body end,
      case when given_up then payload_digest(body) end, case when given_up then clock_timestamp() end
    from (select ${json(payload.body)}::jsonb as body, ${isGivenUp(sql`${payload.runId}::uuid`)} as given_up) as given
    on conflict (id) do nothing`.execute(db)
}

/** Whether nothing is answered out of a run any more, and its texts go. */
export function isGivenUp(runId: RawBuilder<unknown>): RawBuilder<boolean> {
  return sql<boolean>`exists (select from run r where r.id = ${runId} and r.erasing_at is not null)`
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
