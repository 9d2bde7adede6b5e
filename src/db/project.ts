import type { Kysely } from 'kysely'
import { newId } from './ids.ts'
import type { Database } from './schema.ts'

export interface Project {
  readonly id: string
  readonly name: string
  readonly createdAt: Date
}

/** Undefined when the organisation has a project of this name. */
export async function createProject(
  db: Kysely<Database>,
  organisationId: string,
  project: { readonly name: string; readonly nowMs: number },
): Promise<Project | undefined> {
  const row = await db
    .insertInto('project')
    .values({ id: newId(project.nowMs), organisation_id: organisationId, name: project.name })
    .onConflict((conflict) => conflict.columns(['organisation_id', 'name']).doNothing())
    .returning(['id', 'name', 'created_at'])
    .executeTakeFirst()
  return row && { id: row.id, name: row.name, createdAt: row.created_at }
}

export async function listProjects(
  db: Kysely<Database>,
  organisationId: string,
  page: { readonly limit: number; readonly before: string | undefined },
): Promise<readonly Project[]> {
  const rows = await db
    .selectFrom('project')
    .select(['id', 'name', 'created_at'])
    .where('organisation_id', '=', organisationId)
    .$if(page.before !== undefined, (query) => query.where('id', '<', page.before ?? ''))
    .orderBy('id', 'desc')
    .limit(page.limit)
    .execute()
  return rows.map((row) => ({ id: row.id, name: row.name, createdAt: row.created_at }))
}

export async function getProject(
  db: Kysely<Database>,
  organisationId: string,
  projectId: string,
): Promise<Project | undefined> {
  const row = await db
    .selectFrom('project')
    .select(['id', 'name', 'created_at'])
    .where('organisation_id', '=', organisationId)
    .where('id', '=', projectId)
    .executeTakeFirst()
  return row && { id: row.id, name: row.name, createdAt: row.created_at }
}
