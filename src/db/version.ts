import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'

/** Where what has versions stands. All of them are counted by the change itself. */
const TABLES = Object.freeze({
  organisation: 'organisation',
  project: 'project',
  key: 'api_key',
  limit: 'usage_limit',
  webhook: 'webhook',
  schedule: 'schedule',
  provider: 'provider',
})

/** What several people may change at the same time. */
export type Versioned = keyof typeof TABLES | 'catalog'

/**
 * The version of something, which nobody else changes until the transaction ends. It says nothing of whether the caller may
 * see it. Undefined when there is none.
 */
export async function lockVersion(
  trx: Kysely<Database>,
  { what, id }: { readonly what: Versioned; readonly id: string },
): Promise<number | undefined> {
  if (what === 'catalog') await lockCatalog(trx)
  const { rows } = await (
    what === 'catalog'
      ? sql<{ version: number }>`select max(version) as version from catalog having count(*) > 0`
      : sql<{ version: number }>`
        select version::integer as version from ${sql.table(TABLES[what])}
        where ${sql.ref(what === 'provider' ? 'name' : 'id')} = ${id} for no key update`
  ).execute(trx)
  return rows[0]?.version
}

/** Who puts catalogs in force takes turns. */
export async function lockCatalog(trx: Kysely<Database>): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended('catalog', 0))`.execute(trx)
}
