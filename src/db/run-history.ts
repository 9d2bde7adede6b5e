import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'

/** Runs that are erased here, and whose workflow Temporal may still know, the longest erased first. */
export async function runsWithHistory(db: Kysely<Database>, limit: number): Promise<readonly string[]> {
  const rows = await db
    .selectFrom('run')
    .select('id')
    .where('erased_at', 'is not', null)
    .where('history_erased_at', 'is', null)
    .orderBy('erased_at')
    .limit(limit)
    .execute()
  return rows.map(({ id }) => id)
}

export async function markHistoryErased(db: Kysely<Database>, runId: string): Promise<void> {
  await db
    .updateTable('run')
    .set({ history_erased_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', runId)
    .where('erased_at', 'is not', null)
    .execute()
}
