import type { WebhookTopic } from '#contracts/api-webhook.ts'
import type { ColumnType, Generated } from 'kysely'

type Json = ColumnType<unknown, string, string>
type Stamp = Generated<Date>

/** Addresses that are told what happens in a project, and what they were told. */
export interface WebhookTables {
  webhook: {
    id: string
    project_id: string
    url: string
    topics: WebhookTopic[]
    secret: Buffer
    low_balance: Json
    created_at: Stamp
    ended_at: Date | null
    seen_xid: Generated<string>
    seen_seq: Generated<bigint>
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
  webhook_low_balance: {
    webhook_id: string
    account_id: string
    told_at: Stamp
  }
}
