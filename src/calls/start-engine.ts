import { createLedgerQueue } from '#db/ledger-queue.ts'
import type { Retention } from '#db/retention.ts'
import type { Database } from '#db/schema.ts'
import type { Provider } from '#providers/provider.ts'
import type { Kysely } from 'kysely'
import type { Engine } from './engine.ts'
import { startGateWatch } from './gate-watch.ts'
import { startHousekeeping } from './housekeeping.ts'
import { startInstanceLease, type Clocks } from './instance-lease.ts'
import type { LostCostPolicy } from './lost-cost.ts'
import { startRouteDesk } from './route-desk.ts'
import { createShelf } from './shelf.ts'
import { createTokenCounter } from './token-counter.ts'

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
  readonly lostCost?: LostCostPolicy
  /** Left out: for ever. */
  readonly retention?: Retention
}): Promise<RunningEngine> {
  const clocks: Clocks = { nowMs: () => Date.now(), monotonicMs: () => performance.now() }
  const instance = await startInstanceLease({
    db: options.db,
    kind: options.kind,
    clocks,
  })
  const routes = await startRouteDesk({ db: options.db, instanceId: instance.id, clocks })
  const gates = await startGateWatch({ db: options.db, databaseUrl: options.databaseUrl })
  const engine: Engine = {
    db: options.db,
    queue: createLedgerQueue({ db: options.db, instanceId: instance.id }),
    instance,
    gates,
    lostCost: options.lostCost ?? 'maximum',
    retention: options.retention ?? { refusalsDays: 0, idempotencyDays: 0, instancesDays: 0 },
    providers: new Map(options.providers.map((provider) => [provider.name, provider])),
    shelf: createShelf(options.db, () => performance.now()),
    tokens: createTokenCounter(),
    routes,
    nowMs: () => Date.now(),
    random: () => Math.random(),
  }
  const housekeeping = startHousekeeping(engine)
  return {
    ...engine,
    async stop() {
      await housekeeping.stop()
      await gates.stop()
      await engine.tokens.stop()
      await routes.stop()
      await instance.stop()
    },
  }
}
