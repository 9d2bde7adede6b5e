import type { BalanceClass, Certainty, Gate, LedgerCode, LimitMeasure, Use } from '#contracts/names.ts'
import type { Outcome } from '#domain/policy.ts'
import type { RunState } from '#domain/run-states.ts'
import type { ColumnType, Generated } from 'kysely'
import type { CorpusTables } from './corpus-tables.ts'
import type { DatasetTables } from './dataset-tables.ts'
import type { LimitTables } from './limit-tables.ts'
import type { RouteTables } from './route-tables.ts'
import type { ScheduleTables } from './schedule-tables.ts'
import type { OutsideTables } from './outside-tables.ts'
import type { PayloadTables } from './payload-tables.ts'
import type { TenantTables } from './tenant-tables.ts'

/** JSON columns are read as parsed values and written as JSON text: `json()` in `src/db/json.ts` writes them. */
export type Json = ColumnType<unknown, string, string>
type Stamp = Generated<Date>

export interface Database
  extends
    TenantTables,
    CorpusTables,
    DatasetTables,
    LimitTables,
    RouteTables,
    ScheduleTables,
    OutsideTables,
    PayloadTables {
  idempotency: { scope: string; key: string; digest: Buffer; status: number; body: Json; created_at: Stamp }
  instance: {
    id: string
    kind: string
    host: string
    pid: number
    started_at: Stamp
    lease_until: Date
    encrypts_with: string | null
  }
  catalog: { version: Generated<number>; digest: Buffer; document: Json; created_at: Stamp }
  price: {
    id: string
    provider: string
    upstream_model: string
    currency: string
    input_nano_per_million: bigint
    cached_input_nano_per_million: bigint
    output_nano_per_million: bigint
    per_call_nano: bigint
    more: Json | null
    effective_at: Stamp
    made_in: Generated<string>
  }
  wallet: { id: string; project_id: string; created_at: Stamp }
  envelope: {
    id: string
    project_id: string
    wallet_id: string
    run_id: string | null
    parent_id: string | null
    api_key_id: string | null
    subjects: string[]
    kind: string
    gate: Gate
    own_gate: 'open' | 'frozen' | 'closing' | null
    gate_reason: string | null
    created_at: Stamp
    closed_at: Date | null
  }
  account: {
    id: string
    project_id: string
    kind: string
    wallet_id: string | null
    envelope_id: string | null
    balance_class: BalanceClass | null
    currency: string
    gate: Gate
    posted_debit: bigint
    posted_credit: bigint
    pending_debit: bigint
    pending_credit: bigint
    version: bigint
    cap: bigint | null
    carved: Generated<bigint>
    moved_at: Stamp
    created_at: Stamp
  }
  lot: {
    id: string
    project_id: string
    account_id: string
    source: string
    priority: number
    expires_at: Date | null
    opening: bigint
    free: bigint
    created_at: Stamp
  }
  quote: {
    id: string
    organisation_id: string
    sell_currency: string
    buy_currency: string
    sell: bigint
    buy: bigint
    source: string
    effective_at: Stamp
    expires_at: Date | null
  }
  transfer: {
    id: string
    seq: Generated<bigint>
    xid: Generated<string>
    recorded_at: Stamp
    project_id: string
    code: LedgerCode
    debit_account: string
    credit_account: string
    currency: string
    amount: bigint
    released: bigint
    pending_id: string | null
    envelope_id: string | null
    run_id: string | null
    call_id: string | null
    attempt: number | null
    certainty: Certainty | null
    use: Use | null
    reference: string | null
    lot_id: string | null
    quote_id: string | null
    reverses: string | null
    debit_version: bigint | null
    debit_balance: bigint | null
    debit_held: bigint | null
    credit_version: bigint | null
    credit_balance: bigint | null
    credit_held: bigint | null
  }
  refusal: {
    hold_id: string
    project_id: string
    run_id: string
    envelope_id: string
    account_id: string
    call_id: string
    attempt: number
    bound: 'pocket' | 'parent' | 'wallet' | 'limit'
    asked: bigint
    free: bigint
    plan: Json
    recorded_at: Stamp
    limit_id: string | null
    measure: Generated<LimitMeasure>
    cap: bigint | null
    spent: bigint | null
    held: bigint | null
    resets_at: Date | null
  }
  run: {
    id: string
    project_id: string
    api_key_id: string
    envelope_id: string
    agent: string
    model: string
    input: Json
    options: Json
    state: Generated<RunState>
    reason: string | null
    detail: string | null
    stop: Json | null
    output: Json | null
    created_at: Stamp
    started_at: Date | null
    ending_at: Date | null
    finished_at: Date | null
    parent_run_id: Generated<string | null>
    parent_path: Generated<string | null>
    source_run_id: Generated<string | null>
    reuse_before: Generated<Date | null>
    priority: Generated<number>
    deadline_at: Generated<Date | null>
    downgraded_at: Generated<Date | null>
    wrapping_up_at: Generated<Date | null>
    admitted_at: Generated<Date | null>
    schedule_id: Generated<string | null>
    erasing_at: Generated<Date | null>
    erased_at: Generated<Date | null>
    output_digest: Generated<Buffer | null>
    history_erased_at: Generated<Date | null>
  }
  run_question: {
    run_id: string
    path: string
    project_id: string
    question: string
    choices: Json | null
    asked_at: Stamp
    answer: string | null
    answered_at: Date | null
    answered_by: string | null
  }
  command: {
    id: string
    project_id: string
    run_id: string
    kind: 'start' | 'top_up' | 'pause' | 'resume' | 'cancel' | 'answer' | 'end'
    body: Json
    created_at: Stamp
    delivered_at: Date | null
  }
  event: {
    seq: Generated<bigint>
    xid: Generated<string>
    project_id: string
    run_id: string
    kind: string
    data: Json
    recorded_at: Stamp
  }
  call: {
    id: string
    project_id: string
    run_id: string | null
    envelope_id: string
    api_key_id: string
    path: string
    digest: Buffer
    model: string
    catalog_version: number
    request_id: string
    state: Generated<'open' | 'answered'>
    answer_id: string | null
    answer_attempt: number | null
    stop_reason: string | null
    stop_detail: string | null
    created_at: Stamp
    answered_at: Date | null
    reused_from: string | null
  }
  reusable_answer: { project_id: string; digest: Buffer; answered_at: Stamp; call_id: string; answer_id: string }
  attempt: {
    call_id: string
    number: number
    project_id: string
    run_id: string
    envelope_id: string
    account_id: string
    hold_id: string
    instance_id: string
    owner: string
    held: bigint
    leases: string[]
    tokens: bigint
    tokens_used: bigint | null
    plan: Json
    state: 'sent' | 'resolved'
    outcome: Outcome | null
    detail: Json | null
    usage: Json | null
    sent_at: Stamp
    resolved_at: Date | null
  }
}
