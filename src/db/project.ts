import type { Page } from '#contracts/api-page.ts'
import { sql, type Kysely, type Selectable } from 'kysely'
import type { Scope } from './database.ts'
import { newId } from './ids.ts'
import type { Database } from './schema.ts'
import { pageBy } from './page.ts'

export interface Project {
  readonly id: string
  readonly name: string
  /** Root runs that may be at work at the same time. */
  readonly maxRunningRuns: number
  readonly createdAt: Date
  readonly version: number
}

const COLUMNS = Object.freeze(['id', 'name', 'created_at', 'max_running_runs', 'version'] as const)

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
    .returning(COLUMNS)
    .executeTakeFirst()
  return row && viewOf(row)
}

export async function listProjects(
  db: Kysely<Database>,
  organisationId: string,
  page: Page,
): Promise<readonly Project[]> {
  const rows = await db
    .selectFrom('project')
    .select(COLUMNS)
    .where('organisation_id', '=', organisationId)
    .where(pageBy(sql.ref('id'), page).follows)
    .orderBy('id', page.order)
    .limit(page.limit)
    .execute()
  return rows.map(viewOf)
}

export async function getProject(
  db: Kysely<Database>,
  organisationId: string,
  projectId: string,
): Promise<Project | undefined> {
  const row = await db
    .selectFrom('project')
    .select(COLUMNS)
    .where('organisation_id', '=', organisationId)
    .where('id', '=', projectId)
    .executeTakeFirst()
  return row && viewOf(row)
}

/** The organisation that a project is of. */
export async function organisationOf(db: Kysely<Database>, scope: Scope): Promise<string> {
  const row = await db
    .selectFrom('project')
    .select('organisation_id')
    .where('id', '=', scope.projectId)
    .executeTakeFirstOrThrow()
  return row.organisation_id
}

/** How many of a project's runs may be at work at the same time. Those that are stay, if there are more. */
export async function setMaxRunningRuns(db: Kysely<Database>, scope: Scope, maxRunningRuns: number): Promise<Project> {
  const row = await db
    .updateTable('project')
    .set({ max_running_runs: maxRunningRuns })
    .where('id', '=', scope.projectId)
    .returning(COLUMNS)
    .executeTakeFirstOrThrow()
  return viewOf(row)
}

function viewOf(row: Pick<Selectable<Database['project']>, (typeof COLUMNS)[number]>): Project {
  const { id, name, max_running_runs: maxRunningRuns, created_at: createdAt, version } = row
  return { id, name, maxRunningRuns, createdAt, version }
}
