import { Problem } from '#contracts/codes.ts'
import type { Kysely } from 'kysely'
import {
  findMoney,
  refillLeases,
  type Fetched,
  type PocketKey,
  type ReserveAnswer,
  type ReserveItem,
  type SettleAnswer,
  type SettleItem,
} from './hold.ts'
import { fly, type Landed } from './ledger-flight.ts'
import type { Database } from './schema.ts'

/** Most items of one commit: beyond it a larger batch only adds latency. */
const MAX_BATCH = 128
/** Commits under way at once from one process: while they are, the next batches fill. */
const MAX_FLIGHTS = 2
/** Most holds waiting for one pocket in one process: beyond it the answer is `overloaded`, never "no money". */
const MAX_WAITING = 10_000
/** How often a busy pocket is asked again when nothing was settled here: another process may have settled. */
const BUSY_POLL_MS = 100
/** Fetches of money or leases under way at once from one process. */
const MAX_FETCHING = 3
/** How often money is fetched for one hold before others are let in front of it for a moment. */
const MAX_FETCHES = 10

export interface ReserveWait {
  /** Ends the wait: the hold is then answered `busy`, and nothing is written. */
  readonly signal: AbortSignal
}

/** Puts many callers' holds and settlements, of many pockets, into few commits. One queue per process. */
export interface LedgerQueue {
  /** Waits first in first out while the pocket is busy. */
  reserve(pocket: PocketKey, item: ReserveItem, wait: ReserveWait): Promise<ReserveAnswer>
  settle(pocket: PocketKey, item: SettleItem): Promise<SettleAnswer>
}

interface Waiting<Item, Answer> {
  readonly pocket: PocketKey
  readonly item: Item
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: unknown) => void
}

type WaitingSettle = Waiting<SettleItem, SettleAnswer>
type WaitingReserve = Waiting<ReserveItem, ReserveAnswer> & { readonly signal: AbortSignal; fetches: number }

/** One pocket's items. A lane is in one flight at a time, so that its order holds. */
interface Lane {
  readonly accountId: string
  readonly settles: WaitingSettle[]
  reserves: WaitingReserve[]
  isFlying: boolean
  /** While money is fetched for its first hold, only its settlements go. */
  isFetching: boolean
  /** Set while a busy pocket is waited for. */
  timer: NodeJS.Timeout | undefined
}

interface Batch {
  readonly lanes: Set<Lane>
  readonly settles: WaitingSettle[]
  readonly reserves: WaitingReserve[]
}

export function createLedgerQueue(options: {
  readonly db: Kysely<Database>
  readonly instanceId: string
}): LedgerQueue {
  const queue = new Queue(options.db, options.instanceId)
  return {
    reserve: (pocket, item, wait) => queue.reserve(pocket, item, wait.signal),
    settle: (pocket, item) => queue.settle(pocket, item),
  }
}

class Queue {
  readonly #db: Kysely<Database>
  readonly #instanceId: string
  readonly #lanes = new Map<string, Lane>()
  /** Lanes with something to send, the longest waiting first. */
  readonly #ready = new Set<Lane>()
  /** Calls and holds under way: none goes twice at once. */
  readonly #underWay = new Set<string>()
  #flights = 0
  #isPumping = false
  readonly #fetching: Promise<unknown>[] = Array.from({ length: MAX_FETCHING }, () => Promise.resolve())
  #nextFetch = 0

  constructor(db: Kysely<Database>, instanceId: string) {
    this.#db = db
    this.#instanceId = instanceId
  }

  reserve(pocket: PocketKey, item: ReserveItem, signal: AbortSignal): Promise<ReserveAnswer> {
    const lane = this.#laneOf(pocket)
    if (lane.reserves.length >= MAX_WAITING) {
      return Promise.reject(
        new Problem('overloaded', 'too many holds wait for one pocket', { remedy: 'Try again later.' }),
      )
    }
    return new Promise((resolve, reject) => {
      lane.reserves.push({ pocket, item, resolve, reject, signal, fetches: 0 })
      if (!lane.timer) this.#makeReady(lane)
    })
  }

  settle(pocket: PocketKey, item: SettleItem): Promise<SettleAnswer> {
    const lane = this.#laneOf(pocket)
    return new Promise((resolve, reject) => {
      lane.settles.push({ pocket, item, resolve, reject })
      this.#wake(lane)
    })
  }

  #laneOf(pocket: PocketKey): Lane {
    const known = this.#lanes.get(pocket.accountId)
    if (known) return known
    const lane: Lane = {
      accountId: pocket.accountId,
      settles: [],
      reserves: [],
      isFlying: false,
      isFetching: false,
      timer: undefined,
    }
    this.#lanes.set(pocket.accountId, lane)
    return lane
  }

  #wake(lane: Lane): void {
    clearTimeout(lane.timer)
    lane.timer = undefined
    this.#makeReady(lane)
  }

  #makeReady(lane: Lane): void {
    if (!lane.isFlying) this.#ready.add(lane)
    if (this.#isPumping) return
    this.#isPumping = true
    // At the end of this turn of the event loop: what arrives together goes together.
    setImmediate(() => {
      this.#isPumping = false
      this.#pump()
    })
  }

  #pump(): void {
    while (this.#flights < MAX_FLIGHTS && this.#ready.size > 0) {
      const batch = this.#takeBatch()
      if (batch.lanes.size === 0) return
      this.#flights += 1
      void this.#send(batch)
    }
  }

  #takeBatch(): Batch {
    const batch: Batch = { lanes: new Set(), settles: [], reserves: [] }
    for (const lane of this.#ready) {
      const room = MAX_BATCH - batch.settles.length - batch.reserves.length
      if (room <= 0) break
      const settles = this.#takeFrom(lane.settles, room, ({ item }) => item.holdId)
      const reserves = lane.isFetching ? [] : this.#takeReserves(lane, room - settles.length)
      if (settles.length + reserves.length === 0) continue
      batch.settles.push(...settles)
      batch.reserves.push(...reserves)
      batch.lanes.add(lane)
      lane.isFlying = true
      this.#ready.delete(lane)
    }
    return batch
  }

  #takeReserves(lane: Lane, room: number): WaitingReserve[] {
    lane.reserves = bringForward(lane.reserves, room)
    return this.#takeFrom(lane.reserves, room, ({ item }) => item.callId)
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

  async #send(batch: Batch): Promise<void> {
    const landing = await fly(this.#db, this.#instanceId, batch)
    this.#flights -= 1
    for (const { item } of batch.settles) this.#underWay.delete(item.holdId)
    for (const { item } of batch.reserves) this.#underWay.delete(item.callId)
    batch.settles.forEach((waiting, index) => tell(waiting, landing.settles[index]))
    const staying = new Map<Lane, WaitingReserve[]>()
    const heads = new Map<Lane, ReserveAnswer['verdict']>()
    batch.reserves.forEach((waiting, index) => {
      const landed = landing.reserves[index]
      if (!landed || !('answer' in landed) || !hasToWait(landed.answer)) return tell(waiting, landed)
      if (waiting.signal.aborted) return waiting.resolve({ ...landed.answer, verdict: 'busy' })
      const lane = this.#laneOf(waiting.pocket)
      staying.set(lane, [...(staying.get(lane) ?? []), waiting])
      if (!heads.has(lane)) heads.set(lane, landed.answer.verdict)
    })
    for (const lane of batch.lanes) {
      lane.reserves.unshift(...(staying.get(lane) ?? []))
      void this.#land(lane, heads.get(lane))
    }
    this.#pump()
  }

  /** Lets a lane go on: at once, after its money was fetched, or when its turn has come again. */
  async #land(lane: Lane, head: ReserveAnswer['verdict'] | undefined): Promise<void> {
    lane.isFlying = false
    let isBusy = head === 'busy'
    if (head === 'short' || head === 'lease_short') {
      lane.isFetching = true
      if (lane.settles.length > 0) this.#makeReady(lane)
      isBusy = await this.#fetch(lane, head)
      lane.isFetching = false
    }
    if (lane.isFlying) return
    if (lane.settles.length > 0) this.#makeReady(lane)
    else if (lane.isFetching) return
    else if (lane.reserves.length > 0 && !isBusy) this.#makeReady(lane)
    else if (lane.reserves.length > 0) lane.timer = setTimeout(() => this.#wake(lane), BUSY_POLL_MS)
    else this.#lanes.delete(lane.accountId)
  }

  /** Fetches what the first waiting hold lacks. Returns whether the lane has to wait. */
  async #fetch(lane: Lane, lacking: 'short' | 'lease_short'): Promise<boolean> {
    const [first] = lane.reserves
    if (!first) return false
    first.fetches += 1
    const fetch = lacking === 'short' ? findMoney : refillLeases
    const place = this.#nextFetch++ % MAX_FETCHING
    const turn = (this.#fetching[place] ?? Promise.resolve()).then(() => fetch(this.#db, first.pocket, first.item))
    this.#fetching[place] = turn.catch(() => {})
    const landed: Landed<Fetched> = await turn.then(
      (answer) => ({ answer }),
      (error: unknown) => ({ error }),
    )
    if ('error' in landed) {
      lane.reserves.shift()
      first.reject(landed.error)
      return false
    }
    if (landed.answer === 'again') return first.fetches % MAX_FETCHES === 0
    if (landed.answer === 'busy') return true
    lane.reserves.shift()
    first.resolve({ holdId: first.item.holdId, verdict: landed.answer, replayed: false })
    return false
  }
}

/** Whose wait is over is asked in this batch, however far back it stands, and behind those who still wait. */
function bringForward(waiting: WaitingReserve[], room: number): WaitingReserve[] {
  const over = new Set(waiting.filter(({ signal }) => signal.aborted).slice(0, room))
  if (over.size === 0) return waiting
  const others = waiting.filter((each) => !over.has(each))
  return [...others.slice(0, room - over.size), ...over, ...others.slice(room - over.size)]
}

function hasToWait({ verdict }: ReserveAnswer): boolean {
  return verdict === 'busy' || verdict === 'behind' || verdict === 'short' || verdict === 'lease_short'
}

function tell<Item extends { readonly holdId: string }, Answer extends { readonly holdId: string }>(
  waiting: Waiting<Item, Answer>,
  landed: Landed<Answer> | undefined,
): void {
  if (landed && 'answer' in landed && landed.answer.holdId === waiting.item.holdId) waiting.resolve(landed.answer)
  else if (landed && 'error' in landed) waiting.reject(landed.error)
  else waiting.reject(new Error('the ledger answered for another hold'))
}
