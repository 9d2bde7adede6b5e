import type { Storage } from '#contracts/names.ts'
import type { Generated } from 'kysely'

export interface ProjectTables {
  project: {
    id: string
    organisation_id: string
    name: string
    created_at: Generated<Date>
    max_running_runs: Generated<number>
    /** How its prompts and answers are kept. */
    storage: Generated<Storage>
    /** Null: for ever. */
    keep_days: Generated<number | null>
    version: Generated<number>
  }
}
