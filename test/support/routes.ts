import { startInstanceLease, type InstanceLease } from '#calls/instance-lease.ts'
import {
  startRouteDesk,
  type RouteDesk,
  type RouteResult,
  type RouteTake,
  type RouteTicket,
} from '#calls/route-desk.ts'
import type { Route } from '#contracts/catalog.ts'
import { connectDatabase } from '#db/database.ts'
import type { Database } from '#db/schema.ts'
import { sql, type Kysely } from 'kysely'
import { setTimeout as delay } from 'node:timers/promises'
import { onTestFinished } from 'vitest'
import { createTestDatabase, type TestDatabase } from './postgres.ts'

/** Processes that share nothing but a database. */
export interface RouteWorld {
  readonly database: TestDatabase
  readonly db: Kysely<Database>
  /** As the role that owns the tables. */
  readonly owner: Kysely<Database>
  startProcess(): Promise<TestProcess>
}

export interface TestProcess {
  readonly desk: RouteDesk
  readonly instance: InstanceLease
  readonly db: Kysely<Database>
  /** As kill -9 does: nothing is given back, and the lease of the instance runs out at once. */
  kill(): Promise<void>
}

const clocks = { nowMs: () => Date.now(), monotonicMs: () => performance.now() }

/** With a shorter window, and shorter leases, in place of those of the migration. */
export async function createRouteWorld(
  options: { readonly windowSeconds?: number; readonly leaseMs?: number } = {},
): Promise<RouteWorld> {
  const database = await createTestDatabase()
  const db = connectDatabase({ url: database.appUrl, maxConnections: 4 })
  const owner = connectDatabase({ url: database.ownerUrl, maxConnections: 1 })
  onTestFinished(async () => {
    await db.destroy()
    await owner.destroy()
    await database.drop()
  })
  for (const [name, value] of [
    ['route_window_seconds', options.windowSeconds],
    ['route_lease_ms', options.leaseMs],
  ] as const) {
    if (value === undefined) continue
    await sql`create or replace function ${sql.id(name)}() returns integer language sql immutable
      as ${sql.lit(`select ${value}`)}`.execute(owner)
  }
  return { database, db, owner, startProcess: () => startProcess(database) }
}

async function startProcess(database: TestDatabase): Promise<TestProcess> {
  const db = connectDatabase({ url: database.appUrl, maxConnections: 2 })
  const instance = await startInstanceLease({ db, kind: 'test', clocks })
  const desk = await startRouteDesk({ db, instanceId: instance.id, clocks, random: () => 0 })
  let isOver = false
  const end = async (how: () => Promise<void>) => {
    if (isOver) return
    isOver = true
    await how()
  }
  onTestFinished(() =>
    end(async () => {
      await desk.stop()
      await instance.stop()
      await db.destroy()
    }),
  )
  return {
    desk,
    instance,
    db,
    kill: () =>
      end(async () => {
        await instance.stop()
        await db.destroy()
        await desk.stop()
      }),
  }
}

export function routeTo(upstreamModel: string, limits: Route['limits'] = {}): Route {
  return {
    name: upstreamModel,
    provider: 'sandbox',
    upstreamModel,
    balanceClass: 'direct',
    currency: 'USD',
    markupBps: 0,
    imageTokens: 1_000,
    weight: 1,
    capabilities: { tools: true, jsonSchema: true, vision: false, streaming: true, reasoning: false, choices: true },
    limits,
    contextTokens: 128_000,
    maxOutputTokens: 4_096,
    timeoutMs: 120_000,
  }
}

export const forever = new AbortController().signal

/** Asks again as often as it is told to, until the deadline. Undefined: no room came. */
export async function takePatiently(
  { desk }: TestProcess,
  route: Route,
  options: { readonly tokens?: number; readonly untilMs: number },
): Promise<RouteTicket | undefined> {
  for (;;) {
    const taken: RouteTake = await desk.take(route, options.tokens ?? 0, forever)
    if (taken.ok) return taken.ticket
    const leftMs = options.untilMs - performance.now()
    if (leftMs <= 0) return undefined
    // As a caller does that was told when to come back.
    await delay(Math.max(1, Math.min(leftMs, taken.waitMs)))
  }
}

/** A ticket that must be had at once. */
export async function takeNow({ desk }: TestProcess, route: Route, tokens = 0): Promise<RouteTicket> {
  const taken = await desk.take(route, tokens, forever)
  if (!taken.ok) throw new Error(`no ticket: ${taken.why}, in ${taken.waitMs} ms`)
  return taken.ticket
}

export function ended(change: Partial<RouteResult> = {}): RouteResult {
  return { outcome: 'answered', retryAfterMs: null, tokens: null, held: 1_000n, charged: 1_000n, ...change }
}

/** Commits of this database so far, those of the look itself left out. */
export async function commitsOf({ db }: RouteWorld): Promise<number> {
  await sql`select pg_stat_force_next_flush()`.execute(db)
  const { rows } = await sql<{ commits: string }>`
    select xact_commit::text as commits from pg_stat_database where datname = current_database()`.execute(db)
  return Number(rows[0]?.commits)
}
