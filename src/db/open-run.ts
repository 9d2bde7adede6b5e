import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

/** Runs of one read. */
const PAGE = 500
const FIRST_RUN = '00000000-0000-0000-0000-000000000000'

/** A run that is not over and whose workflow was started, of whatever tenant. */
export interface OpenRun {
  readonly projectId: string
  readonly runId: string
  /** Null for a root; a child's workflow is started by its parent's. */
  readonly parentRunId: string | null
  readonly isParentOver: boolean
  /** Why it is ending already. */
  readonly endReason: string | null
}

/** In pages, each read as it is asked for. Roots whose start was not delivered yet have no workflow to look for. */
export async function* openRuns(db: Kysely<Database>): AsyncGenerator<readonly OpenRun[], void> {
  let after = FIRST_RUN
  for (;;) {
    const { rows } = await sql<OpenRun>`
      select r.project_id as "projectId", r.id as "runId", r.parent_run_id as "parentRunId",
        p.finished_at is not null as "isParentOver", case when r.ending_at is not null then r.reason end as "endReason"
      from run r left join run p on p.id = r.parent_run_id
      where r.finished_at is null and r.id > ${after}
        and not exists (select from command c where c.run_id = r.id and c.kind = 'start' and c.delivered_at is null)
      order by r.id limit ${PAGE}`.execute(db)
    const last = rows.at(-1)
    if (!last) return
    after = last.runId
    yield rows
  }
}

/** Whether a child of it is not over. */
export async function hasOpenChild(db: Kysely<Database>, scope: Scope, runId: string): Promise<boolean> {
  const row = await db
    .selectFrom('run')
    .select('id')
    .where('parent_run_id', '=', runId)
    .where('project_id', '=', scope.projectId)
    .where('finished_at', 'is', null)
    .limit(1)
    .executeTakeFirst()
  return row !== undefined
}
