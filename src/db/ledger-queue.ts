import { Problem } from '#contracts/codes.ts'
import { setTimeout as delay } from 'node:timers/promises'
import type { Kysely } from 'kysely'
import { isStoreUnavailable } from './database.ts'
import {
  reserve,
  settle,
  type PocketKey,
  type ReserveAnswer,
  type ReserveItem,
  type SettleAnswer,
  type SettleItem,
} from './hold.ts'
import type { Database } from './schema.ts'

/** Most items of one commit: beyond 64 a larger batch only adds latency. */
const MAX_BATCH = 64
/** Most holds waiting for one pocket in one process: beyond it the answer is `overloaded`, never "no money". */
const MAX_WAITING = 10_000
/** How often a busy pocket is asked again when nothing was settled here: another process may have settled. */
const BUSY_POLL_MS = 100

export interface ReserveWait {
  /** Ends the wait: the hold is then answered `busy`, and nothing is written. */
  readonly signal: AbortSignal
}

/** Puts many callers' holds and settlements of one pocket into few commits. One queue per process. */
export interface LedgerQueue {
  /** Waits first in first out while the pocket is busy. */
  reserve(pocket: PocketKey, item: ReserveItem, wait: ReserveWait): Promise<ReserveAnswer>
  settle(pocket: PocketKey, item: SettleItem): Promise<SettleAnswer>
}

interface Waiting<Item, Answer> {
  readonly item: Item
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: unknown) => void
}

interface Lane {
  readonly pocket: PocketKey
  readonly settles: Waiting<SettleItem, SettleAnswer>[]
  readonly reserves: (Waiting<ReserveItem, ReserveAnswer> & { readonly signal: AbortSignal })[]
  /** Woken by a settlement while a busy pocket is waited for. */
  wake: AbortController | undefined
  running: boolean
}

interface QueueOptions {
  readonly db: Kysely<Database>
  readonly instanceId: string
}

export function createLedgerQueue(options: QueueOptions): LedgerQueue {
  const lanes = new Map<string, Lane>()

  function laneOf(pocket: PocketKey): Lane {
    const known = lanes.get(pocket.accountId)
    if (known) return known
    const lane: Lane = { pocket, settles: [], reserves: [], wake: undefined, running: false }
    lanes.set(pocket.accountId, lane)
    return lane
  }

  function start(lane: Lane): void {
    lane.wake?.abort()
    if (lane.running) return
    lane.running = true
    void drain(options, lane).finally(() => {
      lane.running = false
      if (lane.settles.length + lane.reserves.length > 0) start(lane)
      else lanes.delete(lane.pocket.accountId)
    })
  }

  return {
    reserve(pocket, item, wait) {
      const lane = laneOf(pocket)
      if (lane.reserves.length >= MAX_WAITING) {
        return Promise.reject(
          new Problem('overloaded', 'too many holds wait for one pocket', { remedy: 'Try again later.' }),
        )
      }
      return new Promise((resolve, reject) => {
        lane.reserves.push({ item, resolve, reject, signal: wait.signal })
        start(lane)
      })
    },
    settle(pocket, item) {
      const lane = laneOf(pocket)
      return new Promise((resolve, reject) => {
        lane.settles.push({ item, resolve, reject })
        start(lane)
      })
    },
  }
}

/** Settlements first: they bring money back for the holds that wait. */
async function drain(options: QueueOptions, lane: Lane): Promise<void> {
  while (lane.settles.length + lane.reserves.length > 0) {
    if (lane.settles.length > 0) {
      await inBatches(lane.settles.splice(0, MAX_BATCH), (items) =>
        settle(options.db, lane.pocket, { items, mode: 'owner' }),
      )
    } else if (await reserveSome(options, lane)) {
      await waitWhileBusy(lane)
    }
  }
}

/** Returns whether the pocket is busy. Those who wait stay in front, in their order. */
async function reserveSome(options: QueueOptions, lane: Lane): Promise<boolean> {
  const batch = lane.reserves.splice(0, MAX_BATCH)
  const busy: typeof batch = []
  const answered = batch.map((waiting) => ({
    ...waiting,
    resolve(answer: ReserveAnswer) {
      if (answer.verdict === 'busy' && !waiting.signal.aborted) busy.push(waiting)
      else waiting.resolve(answer)
    },
  }))
  await inBatches(answered, (items) => reserve(options.db, lane.pocket, { instanceId: options.instanceId, items }))
  lane.reserves.unshift(...busy)
  return busy.length > 0
}

async function waitWhileBusy(lane: Lane): Promise<void> {
  if (lane.settles.length > 0) return
  const wake = new AbortController()
  lane.wake = wake
  await delay(BUSY_POLL_MS, undefined, { signal: wake.signal }).catch(() => {})
  lane.wake = undefined
}

/**
 * Runs a batch as one; if an item makes it throw, one by one, so that a bad item fails alone. A database that is away
 * fails all at once: their callers repeat, and ids make that harmless.
 */
async function inBatches<Item extends { readonly holdId: string }, Answer extends { readonly holdId: string }>(
  batch: readonly Waiting<Item, Answer>[],
  run: (items: readonly Item[]) => Promise<readonly Answer[]>,
): Promise<void> {
  const answers = await run(batch.map((waiting) => waiting.item)).catch((error: unknown) => {
    if (batch.length > 1 && !isStoreUnavailable(error)) return 'apart' as const
    for (const waiting of batch) waiting.reject(error)
    return 'rejected' as const
  })
  if (answers === 'rejected') return
  if (answers !== 'apart') {
    batch.forEach((waiting, index) => {
      const answer = answers[index]
      if (answer?.holdId === waiting.item.holdId) waiting.resolve(answer)
      else waiting.reject(new Error('the ledger answered for another hold'))
    })
    return
  }
  for (const waiting of batch) await inBatches([waiting], run)
}
