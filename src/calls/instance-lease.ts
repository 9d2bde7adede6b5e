import { endLease, LEASE_MS, registerInstance, RENEW_MS, renewLease } from '#db/instance.ts'
import { newId } from '#db/ids.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'
import { hostname } from 'node:os'

/** Kept back from the lease, for the time between the check and the socket. */
const MARGIN_MS = 2_000

export interface Clocks {
  readonly nowMs: () => number
  readonly monotonicMs: () => number
}

/** This process as the owner of attempts. */
export interface InstanceLease {
  readonly id: string
  /** Whether nobody can have taken this process's attempts over: asked right before a request is sent. */
  isFresh(): boolean
  /** Attempts that executors of this process are working on, by owner. */
  readonly owners: Set<string>
  /** Owners whose hold may have been granted without their knowing: it was surely not sent. */
  readonly unsent: Set<string>
  stop(): Promise<void>
}

/** Registers this process and renews its lease each second, until stopped. */
export async function startInstanceLease(options: {
  readonly db: Kysely<Database>
  readonly kind: 'api' | 'worker' | 'test'
  readonly clocks: Clocks
  /** The id of the key that this process encrypts secrets with, as it is then. */
  readonly encryptsWith?: () => string | undefined
}): Promise<InstanceLease> {
  const { db, kind, clocks, encryptsWith = () => undefined } = options
  const id = newId(clocks.nowMs())
  let renewed = readClocks(clocks)
  let stopped = false
  let renewing: Promise<void> | undefined
  await registerInstance(db, { id, kind, host: hostname(), pid: process.pid, encryptsWith: encryptsWith() })

  async function renew(): Promise<void> {
    const started = readClocks(clocks)
    try {
      await renewLease(db, { id, encryptsWith: encryptsWith() })
      renewed = started
    } catch {
      // The database is away: the lease runs out by itself, and `isFresh` says so.
    }
    renewing = undefined
  }

  const timer = setInterval(() => {
    renewing ??= renew()
  }, RENEW_MS)
  timer.unref()
  return {
    id,
    owners: new Set(),
    unsent: new Set(),
    isFresh: () => !stopped && elapsedMs(renewed, readClocks(clocks)) < LEASE_MS - MARGIN_MS,
    async stop() {
      stopped = true
      clearInterval(timer)
      await renewing
      await endLease(db, id).catch(() => {})
    },
  }
}

interface Reading {
  readonly monotonicMs: number
  readonly wallMs: number
}

function readClocks(clocks: Clocks): Reading {
  return { monotonicMs: clocks.monotonicMs(), wallMs: clocks.nowMs() }
}

/** The monotonic clock stands still while a machine sleeps, the wall clock may be set: whoever says more is believed. */
function elapsedMs(from: Reading, to: Reading): number {
  return Math.max(to.monotonicMs - from.monotonicMs, to.wallMs - from.wallMs)
}
