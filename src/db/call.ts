import type { BalanceClass } from '#contracts/names.ts'
import type { Outcome } from '#domain/policy.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'

/** Something that used up an attempt number: a request, or a hold that was refused. */
export interface Step {
  readonly number: number
  readonly kind: 'attempt' | 'refusal'
  readonly holdId: string
  readonly accountId: string
  readonly instanceId: string | null
  readonly owner: string | null
  readonly state: 'sent' | 'resolved'
  readonly outcome: Outcome
  readonly held: bigint
  readonly free: bigint | null
  readonly plan: unknown
  readonly detail: unknown
  /** Whether the owner's lease was fresh, by the database's clock, when this was read. */
  readonly ownerAlive: boolean
  /** How long ago it was resolved, in milliseconds of the database's clock. */
  readonly sinceMs: number
  /** How long ago it was sent, by the same clock. */
  readonly sentAgoMs: number
  /** For a refusal: what bound it. */
  readonly bound: 'pocket' | 'parent' | 'wallet' | 'limit' | null
  /** What a refusal's amounts count: money in nano, tokens or calls. */
  readonly measure: 'money' | 'tokens' | 'calls'
  /** The limit that bound, in words, such as `key limit per day`. */
  readonly limit: string | null
  /**
   * When the window of that limit ends, in milliseconds from now by the database's clock. Null for a life, and for what
   * would not fit into a whole window either: waiting for the next one would never end.
   */
  readonly resetsInMs: number | null
  /** It would not fit into a limit of which nothing is used either. */
  readonly neverFits: boolean
}

export interface CallStory {
  readonly state: 'open' | 'answered'
  readonly catalogVersion: number
  readonly answerId: string | null
  readonly answer: unknown
  /** There was an answer, and it is not stored any more. */
  readonly isErased: boolean
  readonly steps: readonly Step[]
}

/** The call with its answer and everything that used up an attempt number, in order. Undefined when there is no such call. */
export async function loadCall(db: Kysely<Database>, scope: Scope, callId: string): Promise<CallStory | undefined> {
  // The attempts first: an attempt that is seen to have answered has answered its call by then.
  const { rows } = await sql<Step>`
    select number, 'attempt' as kind, hold_id as "holdId", account_id as "accountId", instance_id as "instanceId", owner,
      state, coalesce(outcome, 'lost') as outcome, held, null::bigint as free, plan, detail,
      exists (select from instance i where i.id = a.instance_id and i.lease_until > clock_timestamp()) as "ownerAlive",
      coalesce(extract(epoch from clock_timestamp() - resolved_at) * 1000, 0)::float8 as "sinceMs",
      extract(epoch from clock_timestamp() - sent_at)::float8 * 1000 as "sentAgoMs",
      null as bound, 'money' as measure, null as "limit", null::float8 as "resetsInMs", false as "neverFits"
    from attempt a where call_id = ${callId} and project_id = ${scope.projectId}
    union all
    select r.attempt, 'refusal', r.hold_id, r.account_id, null, null, 'resolved', 'hold_refused', r.asked, r.free, r.plan,
      null, true, 0, 0, r.bound, r.measure,
      l.scope || ' limit' || case l.period when 'life' then '' else ' per ' || l.period end,
      case when r.asked <= r.cap then extract(epoch from r.resets_at - clock_timestamp())::float8 * 1000 end,
      r.bound = 'limit' and r.asked > r.cap
    from refusal r left join usage_limit l on l.id = r.limit_id
    where r.call_id = ${callId} and r.project_id = ${scope.projectId}
    order by 1`.execute(db)
  const call = await db
    .selectFrom('call')
    .leftJoin('payload', 'payload.id', 'call.answer_id')
    .select(['call.state', 'call.catalog_version', 'call.answer_id', 'payload.body', 'payload.erased_at'])
    .where('call.project_id', '=', scope.projectId)
    .where('call.id', '=', callId)
    .executeTakeFirst()
  if (!call) return undefined
  return {
    state: call.state,
    catalogVersion: call.catalog_version,
    answerId: call.answer_id,
    answer: call.body,
    isErased: call.erased_at !== null,
    steps: rows,
  }
}

/** Why the last pass over the routes ended without an answer. */
export async function noteStop(
  db: Kysely<Database>,
  scope: Scope,
  stop: { readonly callId: string; readonly reason: string; readonly detail: string },
): Promise<void> {
  await db
    .updateTable('call')
    .set({ stop_reason: stop.reason, stop_detail: stop.detail })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', stop.callId)
    .where('state', '=', 'open')
    .execute()
}

/** An envelope's pocket as a plan needs it: which money it is, and how much of it is free. */
export interface Pocket {
  readonly accountId: string
  readonly balanceClass: string
  readonly currency: string
}

export async function pocketsOf(db: Kysely<Database>, scope: Scope, envelopeId: string): Promise<readonly Pocket[]> {
  const rows = await db
    .selectFrom('account')
    .select(['id', 'balance_class', 'currency'])
    .where('project_id', '=', scope.projectId)
    .where('kind', '=', 'pocket')
    .where('envelope_id', '=', envelopeId)
    .execute()
  return rows.map((row) => ({ accountId: row.id, balanceClass: row.balance_class ?? '', currency: row.currency }))
}

/** What a pocket has, held money included. */
export interface PocketBalance {
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly balance: bigint
}

export async function balancesOf(
  db: Kysely<Database>,
  scope: Scope,
  envelopeId: string,
): Promise<readonly PocketBalance[]> {
  const { rows } = await sql<PocketBalance>`
    select balance_class as "balanceClass", currency, posted_credit - posted_debit as balance from account
    where project_id = ${scope.projectId} and kind = 'pocket' and envelope_id = ${envelopeId}
    order by balance_class desc, currency`.execute(db)
  return rows
}

/** An attempt whose owner may be gone. */
export interface OpenAttempt {
  readonly callId: string
  readonly number: number
  /** Null for a call of a standing envelope. */
  readonly runId: string | null
  readonly accountId: string
  readonly holdId: string
  readonly held: bigint
  readonly instanceId: string
  readonly owner: string
  readonly ownerAlive: boolean
  /** What the provider calls the request, where that was kept. */
  readonly requestId: string | null
}

/** Attempts of a run that were sent and not resolved. */
export async function openAttempts(db: Kysely<Database>, scope: Scope, runId: string): Promise<readonly OpenAttempt[]> {
  const { rows } = await sql<OpenAttempt>`
    select call_id as "callId", number, run_id as "runId", account_id as "accountId", hold_id as "holdId", held,
      instance_id as "instanceId", owner, detail->>'providerRequestId' as "requestId",
      exists (select from instance i where i.id = a.instance_id and i.lease_until > clock_timestamp()) as "ownerAlive"
    from attempt a
    where state = 'sent' and project_id = ${scope.projectId} and run_id = ${runId}`.execute(db)
  return rows
}

/** JSON text with sorted keys: the same request has the same digest, however its object was built. */
export function canonical(value: unknown): string {
  return json(sortKeys(value))
}

function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(
    Object.entries(value)
      .toSorted(([left], [right]) => (left < right ? -1 : 1))
      .map(([key, each]) => [key, sortKeys(each)]),
  )
}
