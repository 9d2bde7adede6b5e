import type { Route } from '#contracts/catalog.ts'
import { newId } from '#db/ids.ts'
import { allRoutes } from '#db/route-circuit.ts'
import { routeTurn, type RouteKey, type RouteTurn, type RouteTurnAnswer } from '#db/route-turn.ts'
import type { Database } from '#db/schema.ts'
import { excessPpm } from '#domain/distrust.ts'
import type { Outcome } from '#domain/policy.ts'
import type { Kysely } from 'kysely'
import type { Clocks } from './instance-lease.ts'
import { RouteCircuit } from './route-circuit.ts'
import { RouteRoom, type Taken } from './route-room.ts'

/** How often a process tells what it has seen and looks at what others have, while it makes calls. */
const TURN_MS = 1_000
/** What is known longer is looked at again before a request is sent. */
const STALE_MS = 3_000
/** Changes kept while the database is away: without it no call is made, so that few can come. */
const MAX_UNWRITTEN = 1_000

export type NotReady = 'circuit_open' | 'route_limit'

export type Readiness =
  | { readonly ready: true }
  | { readonly ready: false; readonly why: NotReady; readonly waitMs: number }

export type RouteTake =
  | { readonly ok: true; readonly ticket: RouteTicket }
  | { readonly ok: false; readonly why: NotReady; readonly waitMs: number }

export interface RouteResult {
  /** Null: the request was never sent. */
  readonly outcome: Outcome | null
  /** What the provider said about it, for health. */
  readonly message?: string | null
  readonly retryAfterMs: number | null
  /** Used, input and output together; null: up to what was taken. */
  readonly tokens: number | null
  /** In nano. A charge above what was held makes the route distrusted. */
  readonly held: bigint
  readonly charged: bigint | null
}

/** One attempt's place on a route. Whoever has it ends it, whatever happens: a probe blocks the route until then. */
export interface RouteTicket {
  /** By how much the hold of this attempt is raised, in parts per million of the worst case. */
  readonly distrustPpm: number
  /** The attempt is over. Only the first time counts. */
  done(result: RouteResult): void
}

/** What processes share about routes, as one process sees it. */
export interface RouteDesk {
  /** Whether a request may go there now, and if not, in how many milliseconds to ask again: from what is known here. */
  readiness(route: Route): Readiness
  /**
   * Takes room for one attempt, just before its hold: one request, so many tokens, one concurrent slot, and the probe of
   * a circuit that is half open. Mostly without asking the database.
   *
   * @throws when the database has to be asked and cannot be: a limit that cannot be read lets nothing through
   */
  take(route: Route, tokens: number, signal: AbortSignal): Promise<RouteTake>
  /** By how much holds of this route are raised now, in parts per million of the worst case. */
  distrustPpm(route: Route): number
  /** Gives all room back. Call it when nothing is in flight. */
  stop(): Promise<void>
}

/** What this process knows and has of one route. */
interface Entry {
  readonly key: RouteKey
  readonly circuit: RouteCircuit
  readonly room: RouteRoom
  /** Somebody has asked for it since the last turn. */
  isUsed: boolean
  /** Resolved by the next look. */
  look: PromiseWithResolvers<void> | undefined
}

/** Starts this process's desk; what is known of routes is known when this returns. */
export async function startRouteDesk(options: {
  readonly db: Kysely<Database>
  readonly instanceId: string
  readonly clocks: Clocks
  /** In [0, 1). */
  readonly random?: () => number
}): Promise<RouteDesk> {
  const desk = new Desk({ random: () => Math.random(), ...options })
  for (const { known, ...key } of await allRoutes(options.db)) desk.entryOf(key).circuit.learn(known)
  desk.start()
  return desk
}

class Desk implements RouteDesk {
  readonly #db: Kysely<Database>
  readonly #instanceId: string
  readonly #clocks: Clocks
  readonly #random: () => number
  readonly #entries = new Map<string, Entry>()
  readonly #writing = new Set<Promise<void>>()
  /** Changes that the database does not have yet. */
  readonly #unwritten = new Set<() => Promise<void>>()
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> | undefined

  constructor(options: {
    readonly db: Kysely<Database>
    readonly instanceId: string
    readonly clocks: Clocks
    readonly random: () => number
  }) {
    this.#db = options.db
    this.#instanceId = options.instanceId
    this.#clocks = options.clocks
    this.#random = options.random
  }

  start(): void {
    this.#timer = setInterval(() => this.#tick(), TURN_MS)
    this.#timer.unref()
  }

  readiness(route: Route): Readiness {
    const entry = this.entryOf(route)
    const circuitMs = entry.circuit.waitMs()
    const waitMs = circuitMs > 0 ? circuitMs : entry.room.waitMs(route.limits)
    if (waitMs === 0) return { ready: true }
    // What is waited for is looked at meanwhile.
    entry.isUsed = true
    return { ready: false, why: circuitMs > 0 ? 'circuit_open' : 'route_limit', waitMs: Math.ceil(waitMs) }
  }

  async take(route: Route, tokens: number, signal: AbortSignal): Promise<RouteTake> {
    const entry = this.entryOf(route)
    entry.isUsed = true
    if (entry.circuit.knowledgeAgeMs() > STALE_MS) await this.#look(entry)
    const waitMs = entry.circuit.waitMs()
    if (waitMs > 0) return { ok: false, why: 'circuit_open', waitMs: Math.ceil(waitMs) }
    const wake = () => void this.#run()
    const answer = await entry.room.take(route.limits, { tokens, signal, wake })
    if (!answer.ok) return { ok: false, why: 'route_limit', waitMs: Math.ceil(answer.waitMs) }
    const { taken } = answer
    if (!entry.circuit.isOpen) return { ok: true, ticket: this.#ticket(entry, taken, undefined) }
    const probeId = newId(this.#clocks.nowMs())
    const unused = () => entry.room.giveBack(taken, { tokens: null, isUnsent: true })
    try {
      const isWon = await entry.circuit.winProbe(this.#db, { id: probeId, instanceId: this.#instanceId })
      if (isWon) return { ok: true, ticket: this.#ticket(entry, taken, probeId) }
    } catch (error) {
      unused()
      throw error
    }
    unused()
    return { ok: false, why: 'circuit_open', waitMs: Math.max(1, Math.ceil(entry.circuit.waitMs())) }
  }

  distrustPpm(route: Route): number {
    return this.entryOf(route).circuit.distrustPpm
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await this.#running
    const left = [...this.#entries.values()].filter(isActive)
    if (left.length > 0) await this.#turn(left, true)
    this.#writeAgain()
    await Promise.all(this.#writing)
  }

  entryOf({ provider, upstreamModel }: RouteKey): Entry {
    const name = `${provider} ${upstreamModel}`
    const known = this.#entries.get(name)
    if (known) return known
    const key = { provider, upstreamModel }
    const nowMs = this.#clocks.monotonicMs
    const circuit: RouteCircuit = new RouteCircuit(key, {
      nowMs,
      random: this.#random,
      write: (change) =>
        this.#write(async () => {
          const learned = await change(this.#db)
          if (learned) circuit.learn(learned)
        }),
    })
    const entry: Entry = { key, circuit, room: new RouteRoom(nowMs), isUsed: false, look: undefined }
    this.#entries.set(name, entry)
    return entry
  }

  #ticket(entry: Entry, taken: Taken, probeId: string | undefined): RouteTicket {
    const { distrustPpm } = entry.circuit
    let isDone = false
    return {
      distrustPpm,
      done: ({ outcome, message = null, retryAfterMs, tokens, held, charged }) => {
        if (isDone) return
        isDone = true
        entry.isUsed = true
        entry.room.giveBack(taken, { tokens, isUnsent: outcome === null })
        const end = { outcome, retryAfterMs, message }
        if (probeId === undefined) entry.circuit.note(end)
        else entry.circuit.noteProbe(probeId, end)
        if (charged !== null) entry.circuit.distrust(excessPpm(held, charged, distrustPpm))
      },
    }
  }

  /** Written at once, and by later ticks until it is: the database may be away. */
  #write(change: () => Promise<void>): void {
    this.#unwritten.add(change)
    const [oldest] = this.#unwritten
    if (oldest && this.#unwritten.size > MAX_UNWRITTEN) this.#unwritten.delete(oldest)
    const written = change()
      .then(
        () => void this.#unwritten.delete(change),
        () => {},
      )
      .finally(() => this.#writing.delete(written))
    this.#writing.add(written)
  }

  #writeAgain(): void {
    if (this.#writing.size === 0) for (const change of this.#unwritten) this.#write(change)
  }

  async #look(entry: Entry): Promise<void> {
    entry.look ??= Promise.withResolvers()
    const { promise } = entry.look
    void this.#run()
    await promise
  }

  /** Takes turns as long as somebody waits for one: one at a time, what comes meanwhile goes with the next. */
  #run(first: readonly Entry[] = []): Promise<void> {
    this.#running ??= this.#takeTurns(first).finally(() => {
      this.#running = undefined
      if (this.#due().length > 0) void this.#run()
    })
    return this.#running
  }

  async #takeTurns(first: readonly Entry[]): Promise<void> {
    // Whoever asks in the same moment asks together.
    await Promise.resolve()
    for (let due = first.length > 0 ? first : this.#due(); due.length > 0; due = this.#due()) await this.#turn(due)
  }

  #due(): readonly Entry[] {
    return [...this.#entries.values()].filter(({ room, look }) => room.isAsked || look)
  }

  /** In the background, while calls are made and until all is given back. */
  #tick(): void {
    this.#writeAgain()
    if (!this.#running) void this.#run([...this.#entries.values()].filter(isActive))
  }

  /** Never fails: who waits for it is told. */
  async #turn(entries: readonly Entry[], isLast = false): Promise<void> {
    const turns = entries.map((entry) => begin(entry, isLast))
    const sentAtMs = this.#clocks.monotonicMs()
    try {
      const answers = await routeTurn(
        this.#db,
        this.#instanceId,
        turns.map(({ turn }) => turn),
      )
      turns.forEach(({ entry, look }, index) => {
        const answer = answers[index]
        if (answer) end(entry, answer, sentAtMs)
        look?.resolve()
      })
    } catch (error) {
      for (const { entry, look } of turns) {
        entry.circuit.untell()
        entry.room.fail(error)
        look?.reject(error)
      }
    }
  }
}

function isActive({ isUsed, circuit, room }: Entry): boolean {
  return isUsed || circuit.hasReport || room.isBusy
}

function begin(entry: Entry, isLast: boolean) {
  const { key, circuit, room, look } = entry
  entry.isUsed = false
  entry.look = undefined
  const turn: RouteTurn = { ...key, report: circuit.tell(), room: room.begin(isLast) ?? null }
  return { entry, look, turn }
}

function end(entry: Entry, { known, room }: RouteTurnAnswer, sentAtMs: number): void {
  entry.circuit.learn(known, sentAtMs)
  if (room) entry.room.end(room, sentAtMs)
}
