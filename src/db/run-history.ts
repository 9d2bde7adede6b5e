import { sql, type Kysely } from 'kysely'
import { instantText } from './instant.ts'
import type { Database } from './schema.ts'

/** A run that is erased here, and whose workflow Temporal may still know. */
export interface RunWithHistory {
  readonly id: string
  /** What to look on behind. */
  readonly place: string
}

/** The longest erased first. */
export async function runsWithHistory(
  db: Kysely<Database>,
  { after, limit }: { readonly after: string | undefined; readonly limit: number },
): Promise<readonly RunWithHistory[]> {
  const [at, id] = after?.split(' ') ?? []
  const { rows } = await sql<RunWithHistory>`
    select id, ${instantText(sql`erased_at`)} || ' ' || id as place from run
    where erased_at is not null and history_erased_at is null
      and ${after === undefined ? sql`true` : sql`(erased_at, id) > (${at}::timestamptz, ${id}::uuid)`}
    order by erased_at, id limit ${limit}`.execute(db)
  return rows
}

export async function markHistoryErased(db: Kysely<Database>, runId: string): Promise<void> {
  await db
    .updateTable('run')
    .set({ history_erased_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', runId)
    .where('erased_at', 'is not', null)
    .execute()
}
