import type { Route } from '#contracts/catalog.ts'
import type { RoomGrant, RoomTurn } from '#db/route-turn.ts'
import { openBatch, type Batch } from './route-batch.ts'

/** Attempts of one process that wait for room of one route: more are refused at once. */
const MAX_ASKS = 1_000
/** Asks of one turn; the next turn goes on. */
const MAX_ASKS_OF_TURN = 250
/** When to ask again where nothing better is known, in milliseconds. */
const ASK_AGAIN_MS = 1_000
/** When to ask again for more than the limit ever gives: a catalog may have changed by then. */
const NEVER_FITS_MS = 3_600_000
/** A process keeps room for as many attempts as it had lately, times this. */
const AHEAD = 2

type Limits = Route['limits']

/** What an attempt has taken. */
export interface Taken {
  readonly requests: number
  readonly tokens: number
  readonly batch: Batch
}

export type RoomAnswer = { readonly ok: true; readonly taken: Taken } | { readonly ok: false; readonly waitMs: number }

interface Ask {
  readonly tokens: number
  answer(answer: RoomAnswer): void
  fail(error: unknown): void
}

/**
 * What one process may use of a route's limits without asking: leased in turns, kept while it is used, given back when it
 * is not. Every number here is at most what the database has lent; whatever is not sure counts as used there.
 */
export class RouteRoom {
  #limits: Limits = {}
  #requests = 0
  #tokens = 0
  #slots = 0
  #inFlight = 0
  #validUntilMs = 0
  #batch = openBatch()
  #flight: { readonly batch: Batch; readonly asks: readonly Ask[]; readonly overTokens: number } | undefined
  #lately = { requests: 0, tokens: 0 }
  #mostInFlight = 0
  readonly #back = new Map<number, { requests: number; tokens: number }>()
  #overTokens = 0
  #asks: Ask[] = []
  #abandons = false
  #isCrowded = false
  /** Until then nothing with so many tokens fits, unless something comes back here. */
  #full = { untilMs: 0, tokens: 0 }

  readonly #nowMs: () => number

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs
  }

  /** Takes room for one attempt. `wake` is called when that takes a turn. */
  take(limits: Limits, request: { readonly tokens: number; readonly signal: AbortSignal; readonly wake: () => void }) {
    const { tokens, signal, wake } = request
    this.#limits = limits
    if (this.#asks.length === 0 && this.#fits(tokens)) return this.#taken(tokens)
    if (tokens > (limits.tokensPerMinute ?? Infinity)) return { ok: false, waitMs: NEVER_FITS_MS } as const
    const waitMs = this.#asks.length >= MAX_ASKS ? ASK_AGAIN_MS : this.#fullForMs(tokens)
    if (waitMs > 0) return { ok: false, waitMs } as const
    const { promise, resolve, reject } = Promise.withResolvers<RoomAnswer>()
    const ask: Ask = { tokens, answer: resolve, fail: reject }
    const leave = () => {
      this.#asks = this.#asks.filter((each) => each !== ask)
      resolve({ ok: false, waitMs: 0 })
    }
    if (signal.aborted) return { ok: false, waitMs: 0 } as const
    signal.addEventListener('abort', leave, { once: true })
    this.#asks.push(ask)
    wake()
    return promise.finally(() => signal.removeEventListener('abort', leave))
  }

  /** In how many milliseconds to ask again, as far as this process knows; 0: now. */
  waitMs(limits: Limits): number {
    this.#limits = limits
    return this.#fits(0) ? 0 : this.#fullForMs(0)
  }

  /** An attempt is over: what it did not use comes back. Null: it may have used all; `isUnsent`: it used nothing. */
  giveBack(taken: Taken, end: { readonly tokens: number | null; readonly isUnsent: boolean }): void {
    this.#inFlight -= 1
    const { batch } = taken
    const requests = end.isUnsent ? taken.requests : 0
    const tokens = end.isUnsent ? taken.tokens : taken.tokens - (end.tokens ?? taken.tokens)
    if (this.#isBound('concurrency') || requests > 0 || tokens > 0) this.#full = { untilMs: 0, tokens: 0 }
    if (tokens < 0) this.#overTokens += this.#limits.tokensPerMinute === undefined ? 0 : -tokens
    const backTokens = Math.max(0, tokens)
    if (batch.state === 'open') {
      batch.requests -= requests
      batch.tokens -= backTokens
      this.#requests += requests
      this.#tokens += backTokens
    } else if (batch.state === 'sent') {
      batch.backRequests += requests
      batch.backTokens += backTokens
    } else if (batch.state === 'told') this.#bring(batch.slot, requests, backTokens)
  }

  /** Whether attempts wait for a turn. */
  get isAsked(): boolean {
    return this.#asks.length > 0
  }

  /** Whether the next turn in the background has something to tell or to give back. */
  get isBusy(): boolean {
    const hasLease =
      this.#requests > 0 || this.#tokens > 0 || (this.#isBound('concurrency') && this.#slots > this.#inFlight)
    return (
      this.isAsked ||
      this.#batch.requests > 0 ||
      hasLease ||
      this.#back.size > 0 ||
      this.#overTokens > 0 ||
      this.#abandons
    )
  }

  /** Begins a turn; undefined when there is nothing to say. With `isLast` everything is given back. */
  begin(isLast = false): RoomTurn | undefined {
    this.#serve([...this.#asks])
    if (!this.isBusy) return undefined
    if (this.#nowMs() >= this.#validUntilMs) this.#abandon()
    const asks = this.#asks.slice(0, MAX_ASKS_OF_TURN)
    const batch = this.#batch
    const isActive = !isLast && !this.#isCrowded && (batch.requests > 0 || asks.length > 0)
    const ahead = {
      requests: isActive ? AHEAD * Math.max(batch.requests, this.#lately.requests, 1) : 0,
      tokens: isActive ? AHEAD * Math.max(batch.tokens, this.#lately.tokens) : 0,
      slots: isActive ? AHEAD * this.#mostInFlight : 0,
    }
    // What attempts wait for is not given back before it was tried.
    const keeps = asks.length > 0 ? { requests: Infinity, tokens: Infinity, slots: Infinity } : ahead
    const keepSlots = isLast ? 0 : Math.max(this.#inFlight, Math.min(this.#slots, keeps.slots))
    this.#requests = Math.min(this.#requests, keeps.requests)
    this.#tokens = Math.min(this.#tokens, keeps.tokens)
    this.#slots = keepSlots
    this.#lately = { requests: batch.requests, tokens: batch.tokens }
    this.#mostInFlight = this.#inFlight
    this.#batch = openBatch()
    batch.state = 'sent'
    this.#flight = { batch, asks, overTokens: this.#overTokens }
    const turn = this.#turn({ batch, asks, keepSlots, ahead })
    this.#back.clear()
    this.#overTokens = 0
    return turn
  }

  /** The turn was answered; it was sent at `sentAtMs`. */
  end(grant: RoomGrant, sentAtMs: number): void {
    const flight = this.#flight
    this.#flight = undefined
    if (!flight) return
    this.#abandons = false
    if (grant.slot === null) {
      this.#forget(flight.batch)
    } else {
      flight.batch.state = 'told'
      flight.batch.slot = grant.slot
      this.#bring(grant.slot, flight.batch.backRequests, flight.batch.backTokens)
    }
    if (this.#isBound('requestsPerMinute')) this.#requests += grant.requests
    if (this.#isBound('tokensPerMinute')) this.#tokens += grant.tokens
    this.#slots = grant.slots
    this.#validUntilMs = sentAtMs + grant.validMs
    this.#isCrowded = grant.isCrowded
    this.#serve(flight.asks)
    this.#refuse(flight.asks, grant)
  }

  /** The turn may have been written or not. */
  fail(error: unknown): void {
    const flight = this.#flight
    this.#flight = undefined
    if (!flight) return
    flight.batch.state = 'void'
    this.#overTokens += flight.overTokens
    this.#abandon()
    this.#asks = this.#asks.filter((ask) => !flight.asks.includes(ask))
    for (const ask of flight.asks) ask.fail(error)
  }

  /** What is left is not used any more, and what was spent of it is not told: all of it counts. */
  #abandon(): void {
    this.#abandons = true
    this.#forget(this.#batch)
  }

  #forget(batch: Batch): void {
    batch.state = 'void'
    this.#batch.state = 'void'
    this.#batch = openBatch()
    this.#requests = 0
    this.#tokens = 0
  }

  #turn(part: {
    readonly batch: Batch
    readonly asks: readonly Ask[]
    readonly keepSlots: number
    readonly ahead: { readonly requests: number; readonly tokens: number; readonly slots: number }
  }): RoomTurn {
    const { requestsPerMinute, tokensPerMinute, concurrency } = this.#limits
    return {
      rpm: requestsPerMinute ?? null,
      tpm: tokensPerMinute ?? null,
      concurrency: concurrency ?? null,
      abandons: this.#abandons,
      spentRequests: part.batch.requests,
      spentTokens: part.batch.tokens,
      overTokens: this.#overTokens,
      keepRequests: this.#requests,
      keepTokens: this.#tokens,
      inFlight: concurrency === undefined ? 0 : this.#inFlight,
      keepSlots: concurrency === undefined ? 0 : part.keepSlots,
      back: Array.from(this.#back, ([slot, back]) => ({ slot, ...back })),
      asks: part.asks.map(({ tokens }) => tokens),
      aheadRequests: requestsPerMinute === undefined ? 0 : part.ahead.requests,
      aheadTokens: tokensPerMinute === undefined ? 0 : part.ahead.tokens,
      aheadSlots: concurrency === undefined ? 0 : part.ahead.slots,
    }
  }

  #isBound(limit: keyof Limits): boolean {
    return this.#limits[limit] !== undefined
  }

  #fits(tokens: number): boolean {
    if (!Object.values(this.#limits).some((limit) => limit !== undefined)) return true
    return (
      this.#nowMs() < this.#validUntilMs &&
      !this.#abandons &&
      (!this.#isBound('requestsPerMinute') || this.#requests >= 1) &&
      (!this.#isBound('tokensPerMinute') || this.#tokens >= tokens) &&
      (!this.#isBound('concurrency') || this.#inFlight < this.#slots)
    )
  }

  #fullForMs(tokens: number): number {
    return tokens >= this.#full.tokens ? Math.max(0, this.#full.untilMs - this.#nowMs()) : 0
  }

  #taken(tokens: number): { readonly ok: true; readonly taken: Taken } {
    const counted = {
      requests: this.#isBound('requestsPerMinute') ? 1 : 0,
      tokens: this.#isBound('tokensPerMinute') ? tokens : 0,
    }
    this.#requests -= counted.requests
    this.#tokens -= counted.tokens
    this.#batch.requests += counted.requests
    this.#batch.tokens += counted.tokens
    this.#inFlight += 1
    this.#mostInFlight = Math.max(this.#mostInFlight, this.#inFlight)
    return { ok: true, taken: { ...counted, batch: this.#batch } }
  }

  /** First in first out: an ask that does not fit holds up those behind it. */
  #serve(asks: readonly Ask[]): void {
    for (const ask of asks) {
      if (this.#asks[0] !== ask) continue
      if (!this.#fits(ask.tokens)) return
      this.#asks.shift()
      ask.answer(this.#taken(ask.tokens))
    }
  }

  #refuse(asks: readonly Ask[], grant: RoomGrant): void {
    const refused = asks.filter((ask) => this.#asks.includes(ask))
    if (refused.length === 0) return
    this.#asks = this.#asks.filter((ask) => !refused.includes(ask))
    const waitMs = grant.waitMs ?? ASK_AGAIN_MS
    this.#full = {
      untilMs: this.#nowMs() + waitMs,
      tokens: grant.isTokensOnly === true ? Math.min(...refused.map(({ tokens }) => tokens)) : 0,
    }
    for (const ask of refused) ask.answer({ ok: false, waitMs })
  }

  #bring(slot: number, requests: number, tokens: number): void {
    if (requests === 0 && tokens === 0) return
    const back = this.#back.get(slot) ?? { requests: 0, tokens: 0 }
    this.#back.set(slot, { requests: back.requests + requests, tokens: back.tokens + tokens })
  }
}
