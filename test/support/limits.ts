import { connectDatabase } from '#db/database.ts'
import type { ReserveItem, ReserveVerdict, SettleItem } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { registerInstance } from '#db/instance.ts'
import { json } from '#db/json.ts'
import { createLedgerQueue, type LedgerQueue } from '#db/ledger-queue.ts'
import { setLimit, type NewLimit } from '#db/limit.ts'
import { sql } from 'kysely'
import pg from 'pg'
import { onTestFinished } from 'vitest'
import { createWorld, type World } from './world.ts'

/** A world with limits: envelopes whose calls are held and settled as processes do it, without a provider. */
export interface LimitWorld extends World {
  readonly organisationId: string
  /** As the superuser: moves time by moving windows. */
  readonly admin: pg.Client
  /** Sets a limit on the project unless the change says otherwise. Returns its id. */
  limit(change?: Partial<NewLimit>): Promise<string>
  openEnvelope(): Promise<LimitEnvelope>
  /** The calls of an envelope that stands already: a child's, or a key's own. */
  callsOf(envelope: {
    readonly id: string
    readonly runId: string | null
    readonly keyId: string
  }): Promise<LimitEnvelope>
  /** Another process: its own connections, queue and lease. */
  startProcess(maxConnections?: number): Promise<LedgerQueue>
}

export interface LimitEnvelope {
  readonly id: string
  readonly runId: string | null
  readonly keyId: string
  readonly accountId: string
  /** Holds a call's worst case; a call that is `busy` is asked again until the signal ends. */
  hold(ask?: Ask, signal?: AbortSignal): Promise<Held>
  /** Resolves an attempt: what it cost, and how many tokens; null for nothing at all. */
  settle(held: Held, truth: { readonly amount: bigint | null; readonly tokens?: bigint }): Promise<string>
}

export interface Ask {
  readonly amount?: bigint
  readonly tokens?: bigint
  readonly path?: string
  readonly queue?: LedgerQueue
}

export interface Held {
  readonly verdict: ReserveVerdict
  readonly item: ReserveItem
}

const PLENTY = 1_000_000_000n

/** A signal that is over: a hold that would have to wait is answered at once. */
export function impatient(): AbortSignal {
  return AbortSignal.abort()
}

export async function createLimitWorld(): Promise<LimitWorld> {
  const world = await createWorld()
  const admin = new pg.Client(world.database.adminUrl)
  await admin.connect()
  onTestFinished(() => admin.end())
  const project = await world.db.selectFrom('project').selectAll().executeTakeFirstOrThrow()
  const startProcess = async (maxConnections = 4) => {
    const db = connectDatabase({ url: world.database.appUrl, maxConnections })
    onTestFinished(() => db.destroy())
    const instanceId = newId(Date.now())
    await registerInstance(db, { id: instanceId, kind: 'test', host: 'test', pid: 1 })
    await sql`update instance set lease_until = clock_timestamp() + interval '1 hour' where id = ${instanceId}`.execute(
      db,
    )
    return createLedgerQueue({ db, instanceId })
  }
  const queue = await startProcess()
  const caller = { keyId: newId(Date.now()), organisationId: project.organisation_id, projectId: null }
  return {
    ...world,
    admin,
    organisationId: project.organisation_id,
    startProcess,
    async limit(change = {}) {
      const id = newId(Date.now())
      const limit = { ...DAILY_MONEY, id, subjectId: world.scope.projectId, ...change }
      const verdict = await setLimit(world.db, caller, limit)
      if (verdict !== 'set') throw new Error(`the limit was refused: ${verdict}`)
      return id
    },
    async openEnvelope() {
      const { runId, envelopeId } = await world.openRun({ direct: PLENTY })
      const run = await world.db.selectFrom('run').selectAll().where('id', '=', runId).executeTakeFirstOrThrow()
      return callsOf(world, queue, { id: envelopeId, runId, keyId: run.api_key_id })
    },
    callsOf: (envelope) => callsOf(world, queue, envelope),
  }
}

const DAILY_MONEY = {
  scope: 'project',
  step: null,
  measure: 'money',
  currency: 'USD',
  period: 'day',
  timeZone: 'UTC',
  cap: 1_000n,
} as const

async function callsOf(
  world: World,
  queue: LedgerQueue,
  envelope: { readonly id: string; readonly runId: string | null; readonly keyId: string },
): Promise<LimitEnvelope> {
  const { id: envelopeId, runId, keyId } = envelope
  const pocket = await world.db
    .selectFrom('account')
    .select('id')
    .where('envelope_id', '=', envelopeId)
    .executeTakeFirstOrThrow()
  const { projectId } = world.scope
  const key = { projectId, accountId: pocket.id }
  return {
    id: envelopeId,
    runId,
    keyId,
    accountId: pocket.id,
    async hold(ask = {}, signal = new AbortController().signal) {
      const { amount = 10n, tokens = 100n, path = 'read/1' } = ask
      const item = {
        holdId: newId(Date.now()),
        callId: newId(Date.now()),
        attempt: 1,
        runId,
        envelopeId,
        amount,
        tokens,
        owner: newId(Date.now()),
        plan: { route: 'test' },
      }
      await makeCall(world, { callId: item.callId, runId, envelopeId, keyId, path })
      const { verdict } = await (ask.queue ?? queue).reserve(key, item, { signal })
      return { verdict, item }
    },
    async settle({ item }, truth) {
      const { verdict } = await queue.settle(key, settlement(item, truth))
      return verdict
    },
  }
}

async function makeCall(
  world: World,
  call: {
    readonly callId: string
    readonly runId: string | null
    readonly envelopeId: string
    readonly keyId: string
    readonly path: string
  },
) {
  await sql`
    insert into call (id, project_id, run_id, envelope_id, api_key_id, path, digest, model, catalog_version, request_id)
    values (${call.callId}, ${world.scope.projectId}, ${call.runId}, ${call.envelopeId}, ${call.keyId}, ${call.path},
      ${Buffer.from('00', 'hex')}, 'steady', 1, ${newId(Date.now())})`.execute(world.db)
}

function settlement(
  item: ReserveItem,
  truth: { readonly amount: bigint | null; readonly tokens?: bigint },
): SettleItem {
  return {
    holdId: item.holdId,
    callId: item.callId,
    attempt: item.attempt,
    resolutionId: newId(Date.now()),
    overageId: newId(Date.now()),
    debtId: newId(Date.now()),
    amount: truth.amount,
    tokens: truth.amount === null ? null : (truth.tokens ?? null),
    certainty: truth.amount === null ? null : 'estimated',
    outcome: 'aborted',
    detail: null,
    usage: null,
    answerId: null,
    answer: null,
  }
}

/** What a limit's window of now lends, as its rows say. */
export async function windowOf(world: LimitWorld, limitId: string) {
  const { rows } = await sql<{ used: bigint; held: bigint; leased: bigint; cap: bigint }>`
    select u.cap, coalesce((select sum(used) from limit_window where limit_id = u.id), 0)::bigint
        + coalesce(sum(l.used), 0)::bigint as used, coalesce(sum(l.held), 0)::bigint as held,
      coalesce((select sum(used) from limit_window where limit_id = u.id), 0)::bigint
        + coalesce(sum(l.leased), 0)::bigint as leased
    from usage_limit u left join lease l on l.limit_id = u.id where u.id = ${limitId} group by u.id`.execute(world.db)
  const [row] = rows
  if (!row) throw new Error('there is no such limit')
  return row
}

/** The only refusal of a hold. */
export async function refusalOf(world: LimitWorld, held: Held) {
  return world.db.selectFrom('refusal').selectAll().where('hold_id', '=', held.item.holdId).executeTakeFirstOrThrow()
}

/** What the events of a run say about its refusals. */
export async function refusalEvents(world: LimitWorld, runId: string | null) {
  const rows = await world.db
    .selectFrom('event')
    .select('data')
    .where('run_id', '=', runId)
    .where('kind', '=', 'attempt.refused')
    .execute()
  return rows.map(({ data }): unknown => JSON.parse(json(data)))
}
