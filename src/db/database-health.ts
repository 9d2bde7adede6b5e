import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'

export async function isReachable(db: Kysely<Database>): Promise<boolean> {
  await sql`select 1`.execute(db)
  return true
}
