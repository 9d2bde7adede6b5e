import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'

/**
 * Whether Postgres has a zone of this name, spelled so. Intl takes more: any case, offsets (to Postgres +01:00 is west of
 * Greenwich) and zones that are gone. Temporal takes none of these, and a schedule of one would never be told.
 */
export async function isZoneName(db: Kysely<Database>, name: string): Promise<boolean> {
  if (name === 'UTC') return true
  const { rows } = await sql`select from pg_timezone_names where name = ${name}`.execute(db)
  return rows.length > 0
}
