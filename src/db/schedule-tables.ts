import type { ColumnType, Generated } from 'kysely'

type Json = ColumnType<unknown, string, string>
type Stamp = Generated<Date>

/** Schedules, and what became of each of their times. */
export interface ScheduleTables {
  schedule: {
    id: string
    project_id: string
    api_key_id: string
    name: string
    every_seconds: number | null
    cron: string | null
    time_zone: string
    request: Json
    input: Json
    monthly_cap: Json | null
    state: Generated<'active' | 'paused' | 'deleted'>
    state_reason: Generated<string | null>
    version: Generated<number>
    told_version: Generated<number>
    created_at: Stamp
    changed_at: Stamp
  }
  schedule_firing: {
    schedule_id: string
    scheduled_for: Date
    id: string
    project_id: string
    run_id: string | null
    skipped: string | null
    detail: string | null
    fired_at: Stamp
  }
}
