import type { WebhookTopic } from '#contracts/api-webhook.ts'
import type { BalanceClass, MaxTokensField, ProviderKind } from '#contracts/names.ts'
import type { ColumnType, Generated } from 'kysely'

type Json = ColumnType<unknown, string, string>
type Stamp = Generated<Date>

/**
 * What there is to do with the world outside: a project's addresses that are told of it and its deposits that wait for
 * approval; the installation's providers, and their invoices.
 */
export interface OutsideTables {
  webhook: {
    id: string
    project_id: string
    url: string
    topics: WebhookTopic[]
    secret: Buffer
    /** Null: in clear. */
    encrypted_by: string | null
    low_balance: Json
    created_at: Stamp
    ended_at: Date | null
    seen_xid: Generated<string>
    seen_seq: Generated<bigint>
    thresholds_since: Stamp
    version: Generated<number>
  }
  webhook_delivery: {
    id: string
    webhook_id: string
    project_id: string
    source: string
    topic: WebhookTopic
    body: Json
    state: Generated<'waiting' | 'delivered' | 'dead'>
    tries: Generated<number>
    due_at: Stamp
    last_status: number | null
    last_error: string | null
    created_at: Stamp
    delivered_at: Date | null
  }
  deposit_request: {
    id: string
    project_id: string
    wallet_id: string
    balance_class: BalanceClass
    currency: string
    amount: bigint
    reference: string
    lot: ColumnType<unknown, string | null, string | null>
    asked_by: string | null
    state: Generated<'waiting' | 'approved' | 'refused'>
    decided_by: string | null
    decided_at: Date | null
    transfer_id: string | null
    created_at: Stamp
    reason: Generated<'amount' | 'day'>
  }
  /** What one operator has booked alone, for a day at least. */
  lone_deposit: {
    deposit_id: string
    organisation_id: string
    currency: string
    amount: bigint
    made_at: Stamp
  }
  /** Of calls that belong to no run; numbered with `event`, and written by triggers. */
  key_event: {
    seq: Generated<bigint>
    xid: Generated<string>
    project_id: string
    api_key_id: string
    kind: 'attempt.refused' | 'attempt.settled'
    data: Json
    recorded_at: Stamp
  }
  webhook_low_balance: {
    webhook_id: string
    account_id: string
    told_at: Stamp
  }
  webhook_limit_threshold: {
    webhook_id: string
    limit_id: string
    starts_at: Date
    percent: number
    ends_at: Date | null
    told_at: Stamp
  }
  provider: {
    name: string
    kind: ProviderKind
    base_url: string
    max_tokens_field: MaxTokensField | null
    prompt_cache: boolean | null
    api_key: Buffer
    encrypted_by: string
    key_hint: string
    key_changed_at: Stamp
    version: Generated<bigint>
    created_at: Stamp
    changed_at: Stamp
  }
  invoice: {
    id: string
    organisation_id: string
    provider: string
    digest: Buffer
    document: string
    period_from: Date
    period_to: Date
    api_key_id: string
    recorded_at: Stamp
  }
}
