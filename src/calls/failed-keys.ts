import { bearerKey, isKey } from '#contracts/key-secret.ts'
import { sha256 } from '#db/ids.ts'
import { networkOf } from '#domain/network-of.ts'
import { LRUCache } from 'lru-cache'
import type { IncomingHttpHeaders } from 'node:http'

/** How long failures are counted together. */
export const FAILURES_WINDOW_MS = 60_000
/** Addresses whose failures are counted, and keys that are known to have been good. */
const MOST_ADDRESSES = 20_000
const MOST_KEYS = 20_000

/** A request as far as this looks at it. */
interface Asked {
  readonly ip: string
  readonly headers: IncomingHttpHeaders
}

interface Failures {
  count: number
  readonly untilMs: number
}

/**
 * Keys that opened nothing, counted by address in this process: after too many of them only keys that were good here before
 * are looked up, and nobody guesses at the cost of the database.
 */
export class FailedKeys {
  readonly #most: number
  readonly #monotonicMs: () => number
  readonly #failures = new LRUCache<string, Failures>({ max: MOST_ADDRESSES })
  readonly #good = new LRUCache<string, true>({ max: MOST_KEYS })

  /** @param most of one address in a minute */
  constructor(most: number, monotonicMs: () => number) {
    this.#most = most
    this.#monotonicMs = monotonicMs
  }

  isTooMany(request: Asked): boolean {
    return this.#countOf(request) >= this.#most && !this.#wasGood(request)
  }

  noteFailure({ ip }: Asked): void {
    const network = networkOf(ip)
    const nowMs = this.#monotonicMs()
    const known = this.#failures.get(network)
    if (known && known.untilMs > nowMs) known.count += 1
    else this.#failures.set(network, { count: 1, untilMs: nowMs + FAILURES_WINDOW_MS })
  }

  noteGood(request: Asked): void {
    const digest = digestOfKey(request)
    if (digest !== undefined) this.#good.set(digest, true)
  }

  #countOf({ ip }: Asked): number {
    const found = this.#failures.get(networkOf(ip))
    return found && found.untilMs > this.#monotonicMs() ? found.count : 0
  }

  #wasGood(request: Asked): boolean {
    const digest = digestOfKey(request)
    return digest !== undefined && this.#good.has(digest)
  }
}

/** Secrets are kept as their digests only. */
function digestOfKey({ headers }: Asked): string | undefined {
  const { authorization, 'x-api-key': apiKey } = headers
  const secret = bearerKey(authorization) ?? (typeof apiKey === 'string' && isKey(apiKey) ? apiKey : undefined)
  return secret === undefined ? undefined : sha256(secret).toString('base64')
}
