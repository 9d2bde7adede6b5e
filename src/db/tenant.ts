import { sql, type Kysely } from 'kysely'
import type { Caller } from './api-key.ts'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

/** What an id in a path can name. */
const TABLES = Object.freeze({
  project: { table: 'project', tenant: 'id' },
  account: { table: 'account', tenant: 'project_id' },
  wallet: { table: 'wallet', tenant: 'project_id' },
  deposit: { table: 'transfer', tenant: 'project_id' },
  run: { table: 'run', tenant: 'project_id' },
  call: { table: 'call', tenant: 'project_id' },
  corpus: { table: 'corpus', tenant: 'project_id' },
  dataset: { table: 'dataset', tenant: 'project_id' },
  api_key: { table: 'api_key', tenant: 'project_id' },
  schedule: { table: 'schedule', tenant: 'project_id' },
  webhook: { table: 'webhook', tenant: 'project_id' },
  deposit_request: { table: 'deposit_request', tenant: 'project_id' },
  delivery: { table: 'webhook_delivery', tenant: 'project_id' },
})

export type Noun = keyof typeof TABLES

/**
 * The tenant that something belongs to, if this caller may see it: a project key its own project, an operator every
 * project of the organisation. Undefined for a foreign id exactly as for an unknown one.
 */
export async function tenantOf(
  db: Kysely<Database>,
  caller: Caller,
  thing: { readonly noun: Noun; readonly id: string },
): Promise<Scope | undefined> {
  const { table, tenant } = TABLES[thing.noun]
  const { rows } = await sql<Scope>`
    select p.id as "projectId" from ${sql.table(table)} t join project p on p.id = t.${sql.ref(tenant)}
    where t.id = ${thing.id} and p.organisation_id = ${caller.organisationId}
      and (${caller.projectId}::uuid is null or p.id = ${caller.projectId})`.execute(db)
  return rows[0]
}
