import { endLease, LEASE_MS, registerInstance, RENEW_MS, renewLease } from '#db/instance.ts'
import { newId } from '#db/ids.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'
import { hostname } from 'node:os'

/** Kept back from the lease, for the time between the check and the socket. */
const MARGIN_MS = 2_000

/** This process as the owner of attempts. */
export interface InstanceLease {
  readonly id: string
  /** Whether nobody can have taken this process's attempts over: asked right before a request is sent. */
  isFresh(): boolean
  /** Attempts that executors of this process are working on, by owner. */
  readonly owners: Set<string>
  stop(): Promise<void>
}

/** Registers this process and renews its lease each second, until stopped. */
export async function startInstanceLease(options: {
  readonly db: Kysely<Database>
  readonly kind: 'api' | 'worker' | 'test'
  /** Monotonic clock, in milliseconds. */
  readonly monotonicMs: () => number
}): Promise<InstanceLease> {
  const id = newId(Date.now())
  let renewedMs = options.monotonicMs()
  let renewing = false
  await registerInstance(options.db, { id, kind: options.kind, host: hostname(), pid: process.pid })

  async function renew(): Promise<void> {
    if (renewing) return
    renewing = true
    const startedMs = options.monotonicMs()
    try {
      await renewLease(options.db, id)
      renewedMs = startedMs
    } catch {
      // The database is away: the lease runs out by itself, and `isFresh` says so.
    } finally {
      renewing = false
    }
  }

  const timer = setInterval(() => void renew(), RENEW_MS)
  timer.unref()
  return {
    id,
    owners: new Set(),
    isFresh: () => options.monotonicMs() - renewedMs < LEASE_MS - MARGIN_MS,
    async stop() {
      clearInterval(timer)
      await endLease(options.db, id).catch(() => {})
    },
  }
}
