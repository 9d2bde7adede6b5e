import type { Catalog, Route } from '#contracts/catalog.ts'
import { pocketsOf, type Pocket } from '#db/call.ts'
import { catalogAt, newestCatalog, newestVersion, type CatalogVersion } from '#db/catalog.ts'
import type { Scope } from '#db/database.ts'
import { freeFor } from '#db/free-money.ts'
import { runFacts, type RunFacts } from '#db/run.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'
import { LRUCache } from 'lru-cache'
import { createSharedLook } from './shared-look.ts'
import { sellPriceOf, type SellPriceAnswer } from './sell.ts'

/** How long what may change is believed: a new catalog or price is in force everywhere after this. */
const FRESH_MS = 1_000
/** Pockets of so many envelopes, prices of so many upstream models and versions of the catalog are kept. */
const MOST_ENVELOPES = 10_000
const MOST_PRICES = 5_000
const MOST_VERSIONS = 16
const MOST_RUNS = 10_000

/** What plans are made from, kept in this process so that a call does not read it each time. */
export interface Shelf {
  newest(): Promise<CatalogVersion>
  /** A version that a call began with. */
  version(version: number): Promise<Catalog>
  /** What a wallet of the project pays on a route: a quote is its organisation's. */
  price(scope: Scope, route: Route): Promise<SellPriceAnswer>
  /** What was chosen at the start of a run, and never changes. */
  run(runId: string): Promise<RunFacts>
  /** An envelope's pockets. They are never taken away, and one may be added: `isEnough` says whether these will do. */
  pockets(
    scope: Scope,
    envelopeId: string,
    isEnough: (pockets: readonly Pocket[]) => boolean,
  ): Promise<readonly Pocket[]>
  /** What a pocket could pay now (`freeFor`). Who asks at the same time for the same one shares a look. */
  free(scope: Scope, accountId: string): Promise<bigint>
  /** After pockets were added here: the next look reads them. */
  forgetPockets(scope: Scope, envelopeId: string): void
}

interface Kept<Value> {
  readonly value: Value
  readonly atMs: number
}

export function createShelf(db: Kysely<Database>, monotonicMs: () => number): Shelf {
  const versions = new LRUCache<number, Catalog>({ max: MOST_VERSIONS })
  const prices = new LRUCache<string, Kept<Promise<SellPriceAnswer>>>({ max: MOST_PRICES })
  const pockets = new LRUCache<string, Kept<readonly Pocket[]>>({ max: MOST_ENVELOPES })
  const runs = new LRUCache<string, RunFacts>({ max: MOST_RUNS })
  const free = createSharedLook<bigint>()
  let newest: Kept<CatalogVersion> | undefined
  let looking: Promise<CatalogVersion> | undefined

  async function look(): Promise<CatalogVersion> {
    const atMs = monotonicMs()
    const isSame = newest && (await newestVersion(db)) === newest.value.version
    newest = { value: isSame && newest ? newest.value : await newestCatalog(db), atMs }
    versions.set(newest.value.version, newest.value.catalog)
    return newest.value
  }

  return {
    async newest() {
      if (newest && monotonicMs() - newest.atMs < FRESH_MS) return newest.value
      looking ??= look().finally(() => {
        looking = undefined
      })
      return looking
    },
    async version(version) {
      const known = versions.get(version)
      if (known) return known
      const catalog = await catalogAt(db, version)
      versions.set(version, catalog)
      return catalog
    },
    async price(scope, route) {
      const { provider, upstreamModel, currency, costCurrency, markupBps } = route
      const isExchanged = costCurrency !== undefined && costCurrency !== currency
      const owner = isExchanged ? scope.projectId : ''
      const key = JSON.stringify([owner, provider, upstreamModel, currency, costCurrency, markupBps])
      const known = prices.get(key)
      if (known && monotonicMs() - known.atMs < FRESH_MS) return known.value
      const value = sellPriceOf(db, scope, route)
      prices.set(key, { value, atMs: monotonicMs() })
      value.catch(() => void prices.delete(key))
      return value
    },
    async run(runId) {
      const known = runs.get(runId)
      if (known) return known
      const facts = await runFacts(db, runId)
      runs.set(runId, facts)
      return facts
    },
    free: (scope, accountId) => free.of(`${scope.projectId} ${accountId}`, () => freeFor(db, scope, accountId)),
    forgetPockets: (scope, envelopeId) => void pockets.delete(pocketsKey(scope, envelopeId)),
    async pockets(scope, envelopeId, isEnough) {
      const key = pocketsKey(scope, envelopeId)
      const known = pockets.get(key)
      if (known && (isEnough(known.value) || monotonicMs() - known.atMs < FRESH_MS)) return known.value
      const atMs = monotonicMs()
      const value = await pocketsOf(db, scope, envelopeId)
      pockets.set(key, { value, atMs })
      return value
    },
  }
}

function pocketsKey({ projectId }: Scope, envelopeId: string): string {
  return `${projectId} ${envelopeId}`
}
