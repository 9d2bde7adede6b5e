import { bearerKey, isKey } from '#contracts/key-secret.ts'
import type { GatewayLimits } from '#contracts/gateway-limits.ts'
import { sha256 } from '#db/ids.ts'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { LRUCache } from 'lru-cache'
import { callerOfRequest } from './access.ts'
import { networkOf } from './network-of.ts'
import { Refusal } from './refusal.ts'

const WINDOW_MS = 60_000
/** Addresses whose failures are counted, and keys that are known to have been good. */
const MOST_ADDRESSES = 20_000
const MOST_KEYS = 20_000
/** Until a request in flight is over, as likely as not. */
const RETRY_AFTER_SECONDS = 1
const UNAUTHORIZED = 401

declare module 'fastify' {
  interface FastifyRequest {
    visit: Visit | null
  }
}

/** A request from its first byte to the end of its answer. */
interface Visit {
  /** The key that it counts for, once that is known. */
  keyId: string | undefined
  isOver: boolean
}

interface Failures {
  count: number
  readonly untilMs: number
}

/** Refuses what is too much before the database is asked: everything here is counted in this process. */
export class Doorkeeper {
  readonly #limits: GatewayLimits
  readonly #monotonicMs: () => number
  readonly #ofKey = new Map<string, number>()
  readonly #failures = new LRUCache<string, Failures>({ max: MOST_ADDRESSES })
  readonly #good = new LRUCache<string, true>({ max: MOST_KEYS })
  #inFlight = 0

  constructor(limits: GatewayLimits, monotonicMs: () => number) {
    this.#limits = limits
    this.#monotonicMs = monotonicMs
  }

  /** In front of the check of keys. */
  guard(app: FastifyInstance): void {
    app.decorateRequest('visit', null)
    app.addHook('onRequest', (request, reply, done) => {
      const visit: Visit = { keyId: undefined, isOver: false }
      request.visit = visit
      this.#inFlight += 1
      reply.raw.once('close', () => this.#leave(visit))
      done(this.#refusalOf(request))
    })
    app.addHook('onResponse', (request, reply, done) => {
      if (reply.statusCode === UNAUTHORIZED) this.#noteFailure(request)
      done()
    })
  }

  /** Behind the check of keys. */
  guardKeys(app: FastifyInstance): void {
    app.addHook('onRequest', (request, _reply, done) => {
      const { keyId } = callerOfRequest(request)
      this.#noteGood(request)
      const { visit } = request
      // A client that is gone by now was counted out already.
      if (!visit || visit.isOver) return done()
      const inFlight = this.#ofKey.get(keyId) ?? 0
      if (inFlight >= this.#limits.requestsOfKey) return done(busy(`${inFlight} requests of this key are in flight.`))
      this.#ofKey.set(keyId, inFlight + 1)
      visit.keyId = keyId
      done()
    })
  }

  #refusalOf(request: FastifyRequest): Refusal | undefined {
    if (this.#inFlight > this.#limits.requests) return busy('Too many requests are in flight.')
    const failures = this.#failuresOf(request)
    if (failures < this.#limits.failuresOfAddress || this.#wasGood(request)) return undefined
    return new Refusal('busy', 'Too many requests of this address carried no good key.', {
      retryAfterSeconds: WINDOW_MS / 1_000,
      remedy: 'Send a key that is good.',
    })
  }

  #leave(visit: Visit): void {
    visit.isOver = true
    this.#inFlight -= 1
    if (visit.keyId === undefined) return
    const left = (this.#ofKey.get(visit.keyId) ?? 1) - 1
    if (left === 0) this.#ofKey.delete(visit.keyId)
    else this.#ofKey.set(visit.keyId, left)
  }

  #failuresOf({ ip }: FastifyRequest): number {
    const found = this.#failures.get(networkOf(ip))
    return found && found.untilMs > this.#monotonicMs() ? found.count : 0
  }

  #noteFailure({ ip }: FastifyRequest): void {
    const network = networkOf(ip)
    const nowMs = this.#monotonicMs()
    const known = this.#failures.get(network)
    if (known && known.untilMs > nowMs) known.count += 1
    else this.#failures.set(network, { count: 1, untilMs: nowMs + WINDOW_MS })
  }

  #wasGood(request: FastifyRequest): boolean {
    const digest = digestOfKey(request)
    return digest !== undefined && this.#good.has(digest)
  }

  #noteGood(request: FastifyRequest): void {
    const digest = digestOfKey(request)
    if (digest !== undefined) this.#good.set(digest, true)
  }
}

function busy(message: string): Refusal {
  return new Refusal('busy', message, {
    retryAfterSeconds: RETRY_AFTER_SECONDS,
    remedy: 'Send the request again after Retry-After seconds.',
  })
}

/** Secrets are kept as their digests only. */
function digestOfKey({ headers }: FastifyRequest): string | undefined {
  const { authorization, 'x-api-key': apiKey } = headers
  const secret = bearerKey(authorization) ?? (typeof apiKey === 'string' && isKey(apiKey) ? apiKey : undefined)
  return secret === undefined ? undefined : sha256(secret).toString('base64')
}
