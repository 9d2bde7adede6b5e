import type { Page } from '#contracts/api-page.ts'
import type { Storage } from '#contracts/names.ts'
import { sql, type Kysely, type Selectable } from 'kysely'
import type { Scope } from './database.ts'
import { newId } from './ids.ts'
import { pageBy } from './page.ts'
import type { Database } from './schema.ts'

export interface Project {
  readonly id: string
  readonly name: string
  /** Root runs that may be at work at the same time. */
  readonly maxRunningRuns: number
  /** How its prompts and answers are kept. */
  readonly storage: Storage
  /** For so long after what they are of; null: for ever. */
  readonly keepDays: number | null
  readonly createdAt: Date
  readonly version: number
}

const COLUMNS = Object.freeze([
  'id',
  'name',
  'created_at',
  'max_running_runs',
  'storage',
  'keep_days',
  'version',
] as const)

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

/** What of a project may change; what is left out stays. */
export interface ProjectChange {
  /** Those runs that are at work stay, if there are more. */
  readonly maxRunningRuns?: number | undefined
  /** Holds for what is stored already, too. */
  readonly storage?: Storage | undefined
  readonly keepDays?: number | null | undefined
}

export async function changeProject(db: Kysely<Database>, scope: Scope, change: ProjectChange): Promise<Project> {
  const { maxRunningRuns, storage, keepDays } = change
  const row = await db
    .updateTable('project')
    .set({
      ...(maxRunningRuns !== undefined && { max_running_runs: maxRunningRuns }),
      ...(storage !== undefined && { storage }),
      ...(keepDays !== undefined && { keep_days: keepDays }),
    })
    .where('id', '=', scope.projectId)
    .returning(COLUMNS)
    .executeTakeFirstOrThrow()
  return viewOf(row)
}

function viewOf(row: Pick<Selectable<Database['project']>, (typeof COLUMNS)[number]>): Project {
  const { id, name, storage, version } = row
  return {
    id,
    name,
    maxRunningRuns: row.max_running_runs,
    storage,
    keepDays: row.keep_days,
    createdAt: row.created_at,
    version,
  }
}
