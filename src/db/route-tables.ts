import type { Outcome } from '#domain/policy.ts'
import type { ColumnType, Generated } from 'kysely'

/** What processes share about upstream models: tables of the installation, without a tenant. */
export interface RouteTables {
  route_state: {
    provider: string
    upstream_model: string
    epoch: Generated<number>
    failures: Generated<number>
    last_outcome: Outcome | null
    last_message: string | null
    last_failed_at: Date | null
    opened_at: Date | null
    open_until: Date | null
    openings: Generated<number>
    probe_id: string | null
    probe_by: string | null
    probe_since: Date | null
    paused_until: Date | null
    distrust_ppm: Generated<number>
    distrusted_at: Date | null
  }
  route_lease: {
    provider: string
    upstream_model: string
    instance_id: string
    requests: bigint
    tokens: bigint
    slots: bigint
    expires_at: Date
    waiting_since: Date | null
    waiting_until: Date | null
    waiting_tokens: Generated<bigint>
  }
  route_use: { provider: string; upstream_model: string; slot: bigint; requests: bigint; tokens: bigint }
  route_reset: {
    id: string
    provider: string
    upstream_model: string
    what: 'circuit' | 'distrust'
    organisation_id: string
    api_key_id: string
    before: ColumnType<unknown, string, string>
    reset_at: Generated<Date>
  }
}
