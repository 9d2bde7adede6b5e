import { Problem } from '#contracts/codes.ts'
import type { Kysely } from 'kysely'
import {
  findMoney,
  refillLeases,
  type PocketKey,
  type ReserveAnswer,
  type ReserveItem,
  type SettleAnswer,
  type SettleItem,
} from './hold.ts'
import { fly } from './ledger-flight.ts'
import {
  bringForward,
  firstToFetchFor,
  isIdle,
  isSendable,
  mayBeOvertaken,
  newLane,
  sendableReserves,
  sendableSettles,
  tell,
  tellUnlessItWaits,
  type Lane,
  type WaitingReserve,
  type WaitingSettle,
} from './ledger-lane.ts'
import type { Database } from './schema.ts'

/** Most items of one commit: beyond it a larger batch only adds latency. */
const MAX_BATCH = 128
/**
 * Commits under way at once from one process. The second goes only when as much waits as is under way: a commit of few
 * costs nearly as much as one of many.
 */
const MAX_FLIGHTS = 2
/** However few wait, they go after that long: what is under way may be waiting for somebody else's lock. */
const MOST_HELD_BACK_MS = 20
/** Most holds waiting for one pocket in one process: beyond it the answer is `overloaded`, never "no money". */
const MAX_WAITING = 10_000
/** How often those who wait are asked again when nothing was settled here: another process may have settled. */
const BUSY_POLL_MS = 100
/** Fetches of money or leases under way at once from one process. */
const MAX_FETCHING = 3
/** How often something is fetched for one hold before others are let in front of it for a moment. */
const MAX_FETCHES = 10

export interface ReserveWait {
  /** Ends the wait: the hold is then answered `busy`, and nothing is written. */
  readonly signal: AbortSignal
}

/** Puts many callers' holds and settlements, of many pockets, into few commits. One queue per process. */
export interface LedgerQueue {
  /** Waits first in first out while the pocket, or a limit, is busy. */
  reserve(pocket: PocketKey, item: ReserveItem, wait: ReserveWait): Promise<ReserveAnswer>
  settle(pocket: PocketKey, item: SettleItem): Promise<SettleAnswer>
}

const SENDABLE = { settles: sendableSettles, reserves: sendableReserves } as const
type Kind = keyof typeof SENDABLE
interface Batch {
  readonly settles: WaitingSettle[]
  readonly reserves: WaitingReserve[]
}

export function createLedgerQueue(options: {
  readonly db: Kysely<Database>
  readonly instanceId: string
}): LedgerQueue {
  const queue = new Queue(options.db, options.instanceId)
  return { reserve: queue.reserve.bind(queue), settle: queue.settle.bind(queue) }
}

class Queue implements LedgerQueue {
  readonly #db: Kysely<Database>
  readonly #instanceId: string
  readonly #lanes = new Map<string, Lane>()
  /** Lanes with something to send, for each kind the longest waiting first. */
  readonly #ready = { settles: new Set<Lane>(), reserves: new Set<Lane>() }
  /** Calls and holds under way: none goes twice at once. */
  readonly #underWay = new Set<string>()
  /** Commits under way, and the items of those. */
  #flights = 0
  #flying = 0
  /** Set while somebody is held back because too few wait. */
  #heldBack: NodeJS.Timeout | undefined
  #lastKind: Kind = 'settles'
  #isPumping = false
  readonly #fetching: Promise<unknown>[] = Array.from({ length: MAX_FETCHING }, () => Promise.resolve())
  #nextFetch = 0

  constructor(db: Kysely<Database>, instanceId: string) {
    this.#db = db
    this.#instanceId = instanceId
  }

  reserve(pocket: PocketKey, item: ReserveItem, { signal }: ReserveWait): Promise<ReserveAnswer> {
    const lane = this.#laneOf(pocket)
    if (lane.reserves.length >= MAX_WAITING) {
      return Promise.reject(
        new Problem('overloaded', 'too many holds wait for one pocket', { remedy: 'Try again later.' }),
      )
    }
    return new Promise((resolve, reject) => {
      lane.reserves.push({ pocket, item, resolve, reject, signal, verdict: undefined, fetches: 0, restsUntilMs: 0 })
      if (!lane.timer || mayBeOvertaken(lane)) this.#makeReady(lane)
    })
  }

  settle(pocket: PocketKey, item: SettleItem): Promise<SettleAnswer> {
    const lane = this.#laneOf(pocket)
    return new Promise((resolve, reject) => {
      lane.settles.push({ pocket, item, resolve, reject })
      this.#makeReady(lane)
    })
  }

  #laneOf({ accountId }: PocketKey): Lane {
    const known = this.#lanes.get(accountId)
    if (known) return known
    const lane = newLane(accountId)
    this.#lanes.set(accountId, lane)
    return lane
  }

  #makeReady(lane: Lane): void {
    this.#ready.settles.add(lane)
    this.#ready.reserves.add(lane)
    if (this.#isPumping) return
    this.#isPumping = true
    // At the end of this turn of the event loop: what arrives together goes together.
    setImmediate(() => {
      this.#isPumping = false
      this.#pump()
    })
  }

  #pump({ isLate }: { readonly isLate: boolean } = { isLate: false }): void {
    while (this.#flights < MAX_FLIGHTS) {
      const kind = this.#nextKind()
      const waiting = this.#waiting(kind)
      if (waiting === 0) return
      if (waiting < this.#flying && !isLate) return this.#holdBack()
      const batch = this.#takeBatch(kind)
      const items = batch.settles.length + batch.reserves.length
      this.#lastKind = kind
      if (items === 0) return
      this.#flights += 1
      this.#flying += items
      void this.#send(batch, items)
    }
  }

  #holdBack(): void {
    if (this.#heldBack) return
    this.#heldBack = setTimeout(() => {
      this.#heldBack = undefined
      this.#pump({ isLate: true })
    }, MOST_HELD_BACK_MS)
  }

  /** A commit is of one kind, by turns: one of both would have to run what is fixed of both. */
  #nextKind(): Kind {
    const other = this.#lastKind === 'settles' ? 'reserves' : 'settles'
    return this.#waiting(other) > 0 ? other : this.#lastKind
  }

  #waiting(kind: Kind): number {
    let waiting = 0
    for (const lane of this.#ready[kind]) waiting += SENDABLE[kind](lane)
    return waiting
  }

  #takeBatch(kind: Kind): Batch {
    const batch: Batch = { settles: [], reserves: [] }
    const ready = this.#ready[kind]
    const more: Lane[] = []
    for (const lane of ready) {
      const room = MAX_BATCH - batch.settles.length - batch.reserves.length
      if (room === 0) break
      ready.delete(lane)
      if (SENDABLE[kind](lane) === 0) continue
      more.push(lane)
      if (kind === 'settles') batch.settles.push(...this.#takeSettles(lane, room))
      else batch.reserves.push(...this.#takeReserves(lane, room))
    }
    for (const lane of more) if (lane[kind].length > 0) ready.add(lane)
    return batch
  }

  #takeSettles(lane: Lane, room: number): readonly WaitingSettle[] {
    const settles = this.#takeFrom(lane.settles, room, ({ item }) => item.holdId)
    lane.settlesFly = settles.length > 0
    return settles
  }

  #takeReserves(lane: Lane, room: number): readonly WaitingReserve[] {
    clearTimeout(lane.timer)
    lane.timer = undefined
    lane.reserves = bringForward(lane.reserves, room)
    const reserves = this.#takeFrom(lane.reserves, room, ({ item }) => item.callId)
    lane.reservesFly = reserves.length > 0
    return reserves
  }

  /** Takes from the front, up to the first item whose call is under way already. */
  #takeFrom<Each>(waiting: Each[], most: number, keyOf: (each: Each) => string): Each[] {
    let count = 0
    for (const each of waiting.slice(0, most)) {
      const key = keyOf(each)
      if (this.#underWay.has(key)) break
      this.#underWay.add(key)
      count += 1
    }
    return waiting.splice(0, count)
  }

  async #send(batch: Batch, items: number): Promise<void> {
    const landing = await fly(this.#db, this.#instanceId, batch)
    this.#flights -= 1
    this.#flying -= items
    const settled = new Set<Lane>()
    batch.settles.forEach((waiting, index) => {
      this.#underWay.delete(waiting.item.holdId)
      settled.add(this.#laneOf(waiting.pocket))
      tell(waiting, landing.settles[index])
    })
    const staying = new Map<Lane, WaitingReserve[]>()
    batch.reserves.forEach((waiting, index) => {
      this.#underWay.delete(waiting.item.callId)
      if (landing.isWhole) waiting.item = { ...waiting.item, opens: undefined }
      const lane = this.#laneOf(waiting.pocket)
      const others = staying.get(lane) ?? []
      staying.set(lane, others)
      if (!tellUnlessItWaits(waiting, landing.reserves[index])) others.push(waiting)
    })
    for (const lane of settled) this.#landSettles(lane)
    for (const [lane, waiting] of staying) void this.#landReserves(lane, waiting)
    this.#pump()
  }

  /** Money may have come back: whoever waits for it is asked again at once. */
  #landSettles(lane: Lane): void {
    lane.settlesFly = false
    clearTimeout(lane.timer)
    lane.timer = undefined
    if (isSendable(lane)) this.#makeReady(lane)
    else this.#endIfIdle(lane)
  }

  /** Lets the holds of a lane go on: at once, after something was fetched for one of them, or a moment later. */
  async #landReserves(lane: Lane, staying: readonly WaitingReserve[]): Promise<void> {
    const cameSince = lane.reserves.length > 0
    lane.reserves.unshift(...staying)
    const needy = firstToFetchFor(staying)
    const isFetched = needy !== undefined && (await this.#fetch(lane, needy))
    lane.reservesFly = false
    if (lane.reserves.length === 0) this.#endIfIdle(lane)
    else if (isFetched || staying.length === 0 || (cameSince && mayBeOvertaken(lane))) this.#makeReady(lane)
    else this.#askLater(lane)
  }

  #askLater(lane: Lane): void {
    lane.timer ??= setTimeout(() => {
      lane.timer = undefined
      this.#makeReady(lane)
    }, BUSY_POLL_MS)
  }

  #endIfIdle(lane: Lane): void {
    if (!isIdle(lane)) return
    clearTimeout(lane.timer)
    this.#ready.settles.delete(lane)
    this.#ready.reserves.delete(lane)
    this.#lanes.delete(lane.accountId)
  }

  /** Fetches what a hold lacks. Returns whether it is worth asking again at once. */
  async #fetch(lane: Lane, waiting: WaitingReserve): Promise<boolean> {
    waiting.fetches += 1
    const fetch = waiting.verdict === 'short' ? findMoney : refillLeases
    const place = this.#nextFetch++ % MAX_FETCHING
    const turn = (this.#fetching[place] ?? Promise.resolve()).then(() => fetch(this.#db, waiting.pocket, waiting.item))
    this.#fetching[place] = turn.catch(() => {})
    try {
      const verdict = await turn
      if (verdict === 'again' && waiting.fetches % MAX_FETCHES !== 0) return true
      if (verdict === 'again' || verdict === 'busy') {
        waiting.restsUntilMs = performance.now() + BUSY_POLL_MS
        return false
      }
      waiting.resolve({ holdId: waiting.item.holdId, verdict, replayed: false })
    } catch (error) {
      waiting.reject(error)
    }
    lane.reserves.splice(lane.reserves.indexOf(waiting), 1)
    return true
  }
}
