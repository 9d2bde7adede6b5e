import type { Database } from '#db/schema.ts'
import type { LedgerQueue } from '#db/ledger-queue.ts'
import type { Retention } from '#db/retention.ts'
import type { SecretKeys } from '#db/secret-box.ts'
import type { Kysely } from 'kysely'
import type { GateWatch } from './gate-watch.ts'
import type { InstanceLease } from './instance-lease.ts'
import type { LostCostPolicy } from './lost-cost.ts'
import type { ProviderDesk } from './provider-desk.ts'
import type { RouteDesk } from './route-desk.ts'
import type { Shelf } from './shelf.ts'
import type { TokenCounter } from './token-counter.ts'

/** What the engine is given; constructed once per process. */
export interface Engine {
  readonly db: Kysely<Database>
  readonly queue: LedgerQueue
  readonly instance: InstanceLease
  readonly gates: GateWatch
  readonly providers: ProviderDesk
  /** Encrypts what has to be stored and read again. */
  readonly secrets: SecretKeys | undefined
  readonly shelf: Shelf
  readonly tokens: TokenCounter
  readonly routes: RouteDesk
  readonly lostCost: LostCostPolicy
  readonly retention: Retention
  /** Wall clock, in milliseconds. */
  readonly nowMs: () => number
  /** In [0, 1). */
  readonly random: () => number
}

/** Most attempts of one call, refused holds not counted: a provider that only fails is left alone after these. */
export const MAX_ATTEMPTS = 8

/** Longest time that a call's requests take together before there is no other, in milliseconds: one may take eight minutes. */
export const MAX_TOTAL_MS = 1_800_000

/** Longest wait inside an activity: beyond it the workflow sleeps on a timer instead. */
export const MAX_WAIT_MS = 15_000
