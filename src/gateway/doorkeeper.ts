import { FAILURES_WINDOW_MS, FailedKeys } from '#calls/failed-keys.ts'
import type { GatewayLimits } from '#contracts/gateway-limits.ts'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { callerOfRequest } from './access.ts'
import { Refusal } from './refusal.ts'

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

/** Refuses what is too much before the database is asked: everything here is counted in this process. */
export class Doorkeeper {
  readonly #limits: GatewayLimits
  readonly #ofKey = new Map<string, number>()
  readonly #failed: FailedKeys
  #inFlight = 0

  constructor(limits: GatewayLimits, monotonicMs: () => number) {
    this.#limits = limits
    this.#failed = new FailedKeys(limits.failuresOfAddress, monotonicMs)
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
      if (reply.statusCode === UNAUTHORIZED) this.#failed.noteFailure(request)
      done()
    })
  }

  /** Behind the check of keys. */
  guardKeys(app: FastifyInstance): void {
    app.addHook('onRequest', (request, _reply, done) => {
      const { keyId } = callerOfRequest(request)
      this.#failed.noteGood(request)
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
    if (!this.#failed.isTooMany(request)) return undefined
    return new Refusal('busy', 'Too many requests of this address carried no good key.', {
      retryAfterSeconds: FAILURES_WINDOW_MS / 1_000,
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
}

function busy(message: string): Refusal {
  return new Refusal('busy', message, {
    retryAfterSeconds: RETRY_AFTER_SECONDS,
    remedy: 'Send the request again after Retry-After seconds.',
  })
}
