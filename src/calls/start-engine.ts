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
import { startProviderDesk, type StoredProviders } from './provider-desk.ts'
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
  /** Those of the environment. */
  readonly providers: readonly Provider[]
  /** Left out: there are no others. */
  readonly stored?: StoredProviders
  readonly lostCost?: LostCostPolicy
  /** Left out: for ever. */
  readonly retention?: Retention
}): Promise<RunningEngine> {
  const clocks: Clocks = { nowMs: () => Date.now(), monotonicMs: () => performance.now() }
  const instance = await startInstanceLease({
    db: options.db,
    kind: options.kind,
    clocks,
    encryptsWith: () => options.stored?.secrets?.now().keyId,
  })
  const routes = await startRouteDesk({ db: options.db, instanceId: instance.id, clocks })
  const providers = await startProviderDesk({
    db: options.db,
    fixed: options.providers,
    stored: options.stored,
    nowMs: clocks.nowMs,
  })
  const gates = await startGateWatch({ db: options.db, databaseUrl: options.databaseUrl })
  const engine: Engine = {
    db: options.db,
    queue: createLedgerQueue({ db: options.db, instanceId: instance.id }),
    instance,
    gates,
    lostCost: options.lostCost ?? 'maximum',
    retention: options.retention ?? { refusalsDays: 0, idempotencyDays: 0, instancesDays: 0 },
    providers,
    secrets: options.stored?.secrets,
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
      await providers.stop()
      await engine.tokens.stop()
      await routes.stop()
      await instance.stop()
    },
  }
}
