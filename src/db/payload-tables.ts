import type { Generated } from 'kysely'
import type { Json } from './schema.ts'

/** Prompts, answers and what tools gave. */
export interface PayloadTables {
  payload: {
    id: string
    project_id: string
    run_id: string | null
    kind: 'request' | 'answer' | 'tool' | 'output'
    /** Null once it is erased: `digest` stays. */
    body: Json | null
    created_at: Generated<Date>
    digest: Generated<Buffer | null>
    erased_at: Generated<Date | null>
  }
}
