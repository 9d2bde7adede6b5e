import type { AuditAction, Storage } from '#contracts/names.ts'
import type { Generated } from 'kysely'
import type { Json } from './schema.ts'

type Stamp = Generated<Date>

/** Who asks, and what was changed of that. */
export interface TenantTables {
  organisation: {
    id: string
    name: string
    created_at: Stamp
    /** Under which name it is configured; null for one that operators made. */
    configured_as: Generated<string | null>
    changed_at: Stamp
    version: Generated<number>
  }
  project: {
    id: string
    organisation_id: string
    name: string
    created_at: Stamp
    max_running_runs: Generated<number>
    /** How its prompts and answers are kept. */
    storage: Generated<Storage>
    /** Null: for ever. */
    keep_days: Generated<number | null>
    version: Generated<number>
  }
  api_key: {
    id: string
    organisation_id: string
    project_id: string | null
    name: string
    hint: string
    hash: Buffer
    created_at: Stamp
    revoked_at: Date | null
    constraints: Json | null
    scopes: Generated<string[]>
    expires_at: Generated<Date | null>
    /** Read as text: see `listKeys`. */
    allowed_ips: Generated<string | null>
    rotated_from: Generated<string | null>
    last_used_at: Generated<Date | null>
    /** The external run that it was issued for. */
    run_id: Generated<string | null>
    /** The key it was made with; null for the installation itself. */
    made_by: Generated<string | null>
    version: Generated<number>
  }
  audit_event: {
    id: Generated<string>
    organisation_id: string
    project_id: string | null
    api_key_id: string | null
    action: AuditAction
    target: string | null
    before: Json | null
    after: Json | null
    at: Stamp
  }
}
