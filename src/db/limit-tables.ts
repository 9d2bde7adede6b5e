import type { LimitMeasure, LimitPeriod, LimitScope } from '#contracts/names.ts'
import type { Generated } from 'kysely'

type Stamp = Generated<Date>

/** Limits, their windows, and what of these is lent to envelopes. */
export interface LimitTables {
  /** A cap on money (nano), tokens or calls. */
  usage_limit: {
    id: string
    organisation_id: string
    project_id: string | null
    scope: LimitScope
    subject_id: string
    step: string | null
    measure: LimitMeasure
    currency: string | null
    period: LimitPeriod
    time_zone: string
    cap: bigint
    /** Percentages of the cap that webhooks are told of. */
    thresholds: Generated<number[]>
    created_at: Stamp
    retired_at: Date | null
    set_by: string | null
  }
  limit_window: { limit_id: string; starts_at: Date; ends_at: Date | null; used: bigint }
  lease: {
    id: string
    project_id: string
    limit_id: string
    starts_at: Date
    envelope_id: string
    leased: bigint
    used: bigint
    held: bigint
    recalled: Generated<boolean>
  }
  folded_lease: {
    id: string
    project_id: string
    limit_id: string
    starts_at: Date
    envelope_id: string
    used: bigint
    late: bigint
  }
  limit_change: {
    id: string
    organisation_id: string
    limit_id: string
    /** `cap`: and perhaps the thresholds as well. */
    change: 'set' | 'cap' | 'thresholds' | 'retire'
    /** From then on, as are the thresholds. */
    cap: bigint
    thresholds: Generated<number[]>
    api_key_id: string | null
    recorded_at: Stamp
  }
}
