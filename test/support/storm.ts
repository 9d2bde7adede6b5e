import { ledgerId } from '#calls/charge.ts'
import { openCall } from '#db/opened-call.ts'
import { connectDatabase, type Scope } from '#db/database.ts'
import type { PocketKey, ReserveItem, SettleItem } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { createLedgerQueue, type LedgerQueue } from '#db/ledger-queue.ts'
import type { Database } from '#db/schema.ts'
import { sql, type Kysely } from 'kysely'
import { onTestFinished } from 'vitest'
import { pollUntil } from './poll.ts'

/** What a process has of its own: its connections, its instance and its queue. */
export interface Process {
  readonly db: Kysely<Database>
  readonly instanceId: string
  readonly queue: LedgerQueue
}

/** A process more, on the same database. Its lease outlives the test: nothing here renews it. */
export async function startProcess(url: string, maxConnections = 4): Promise<Process> {
  const db = connectDatabase({ url, maxConnections })
  onTestFinished(() => db.destroy())
  const instanceId = await registerForAnHour(db)
  return { db, instanceId, queue: createLedgerQueue({ db, instanceId }) }
}

export async function registerForAnHour(db: Kysely<Database>): Promise<string> {
  const id = newId(Date.now())
  await sql`insert into instance (id, kind, host, pid, lease_until)
    values (${id}, 'test', 'here', 1, clock_timestamp() + interval '1 hour')`.execute(db)
  return id
}

/** A call that may be attempted, without an engine. */
export interface StormCall {
  readonly runId: string
  readonly envelopeId: string
  readonly callId: string
}

/** Opens calls of a run, as an engine would. */
export async function openCalls(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly runId: string; readonly envelopeId: string; readonly count: number },
): Promise<readonly StormCall[]> {
  const { runId, envelopeId, count } = request
  const calls = Array.from({ length: count }, () => ({ runId, envelopeId, callId: newId(Date.now()) }))
  const envelope = await db.selectFrom('envelope').selectAll().where('id', '=', envelopeId).executeTakeFirst()
  const apiKeyId = envelope?.api_key_id ?? newId(Date.now())
  await Promise.all(
    calls.map(({ callId }, index) =>
      openCall(db, scope, {
        id: callId,
        runId,
        envelopeId,
        apiKeyId,
        path: `step/${index}`,
        digest: Buffer.from(callId),
        model: 'steady',
        catalogVersion: 1,
        requestId: newId(Date.now()),
        request: { messages: [] },
      }),
    ),
  )
  return calls
}

/** The hold of an attempt, as an engine would ask for it. */
export function holdOf(call: StormCall, amount: bigint, change: Partial<ReserveItem> & { number?: number } = {}) {
  const { number = 1, ...rest } = change
  const item: ReserveItem = {
    holdId: ledgerId({ ...call, number }, 'hold'),
    callId: call.callId,
    attempt: number,
    runId: call.runId,
    envelopeId: call.envelopeId,
    amount,
    tokens: 10n,
    owner: call.callId,
    plan: { route: 'steady' },
    ...rest,
  }
  return item
}

/** What settles an attempt; an answer is stored with it when there is a text. */
export function settlementOf(
  call: StormCall,
  amount: bigint | null,
  more: { readonly number?: number; readonly answer?: string } = {},
): SettleItem {
  const key = { ...call, number: more.number ?? 1 }
  return {
    holdId: ledgerId(key, 'hold'),
    callId: call.callId,
    attempt: key.number,
    resolutionId: ledgerId(key, 'resolution'),
    overageId: ledgerId(key, 'overage'),
    debtId: ledgerId(key, 'debt'),
    amount,
    tokens: null,
    certainty: amount === null ? null : 'estimated',
    outcome: more.answer === undefined ? 'aborted' : 'answered',
    detail: null,
    usage: null,
    answerId: more.answer === undefined ? null : ledgerId(key, 'answer'),
    answer: more.answer === undefined ? null : { text: more.answer, finishReason: 'stop' },
  }
}

/** A pocket of an envelope, by balance class. */
export async function pocketOf(
  db: Kysely<Database>,
  scope: Scope,
  place: { readonly envelopeId: string; readonly balanceClass: 'direct' | 'credit' },
): Promise<PocketKey> {
  const { id } = await db
    .selectFrom('account')
    .select('id')
    .where('project_id', '=', scope.projectId)
    .where('envelope_id', '=', place.envelopeId)
    .where('balance_class', '=', place.balanceClass)
    .executeTakeFirstOrThrow()
  return { projectId: scope.projectId, accountId: id }
}

/** A wait that only the test ends. */
export function forever(): { readonly signal: AbortSignal } {
  return { signal: new AbortController().signal }
}

/** Deadlocks that Postgres has resolved in this database. Its backends tell when they end, or within a second. */
export async function deadlocksOf(db: Kysely<Database>): Promise<bigint> {
  const { rows } = await sql<{ deadlocks: bigint }>`
    select deadlocks from pg_stat_database where datname = current_database()`.execute(db)
  return rows[0]?.deadlocks ?? 0n
}

/** Until a statement in this database waits for a lock. Only an administrator's connection sees those of others. */
export async function somebodyWaits(admin: Kysely<Database>): Promise<void> {
  const waiting = sql`
    select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
  await pollUntil(async () => (await waiting.execute(admin)).rows.length > 0, { what: 'a statement that waits' })
}
