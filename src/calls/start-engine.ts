import { createLedgerQueue } from '#db/ledger-queue.ts'
import type { Database } from '#db/schema.ts'
import type { Provider } from '#providers/provider.ts'
import type { Kysely } from 'kysely'
import type { Engine } from './engine.ts'
import { startGateWatch } from './gate-watch.ts'
import { startInstanceLease } from './instance-lease.ts'
import { sweepOrphans } from './lost.ts'

const SWEEP_MS = 5_000

export interface RunningEngine extends Engine {
  /** Gives the lease up, so that nobody waits for this process. Call it when nothing is in flight. */
  stop(): Promise<void>
}

/** Starts the one call engine of a process. */
export async function startEngine(options: {
  readonly db: Kysely<Database>
  readonly databaseUrl: string
  readonly kind: 'api' | 'worker' | 'test'
  readonly providers: readonly Provider[]
}): Promise<RunningEngine> {
  const instance = await startInstanceLease({
    db: options.db,
    kind: options.kind,
    clocks: { nowMs: () => Date.now(), monotonicMs: () => performance.now() },
  })
  const gates = await startGateWatch({ db: options.db, databaseUrl: options.databaseUrl })
  const engine: Engine = {
    db: options.db,
    queue: createLedgerQueue({ db: options.db, instanceId: instance.id }),
    instance,
    gates,
    providers: new Map(options.providers.map((provider) => [provider.name, provider])),
    nowMs: () => Date.now(),
    random: () => Math.random(),
  }
  // A sweep that fails because the database is away is made up for by the next one.
  const sweep = setInterval(() => void sweepOrphans(engine).catch(() => {}), SWEEP_MS)
  sweep.unref()
  return {
    ...engine,
    async stop() {
      clearInterval(sweep)
      await gates.stop()
      await instance.stop()
    },
  }
}
