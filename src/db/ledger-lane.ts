import {
  hasToWait,
  type PocketKey,
  type ReserveAnswer,
  type ReserveItem,
  type ReserveVerdict,
  type SettleAnswer,
  type SettleItem,
} from './hold.ts'
import type { Landed } from './ledger-flight.ts'

interface Waiting<Item, Answer> {
  readonly pocket: PocketKey
  readonly item: Item
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: unknown) => void
}

export type WaitingSettle = Waiting<SettleItem, SettleAnswer>

export interface WaitingReserve extends Waiting<ReserveItem, ReserveAnswer> {
  /** Without its call's opening once that is stored. */
  item: ReserveItem
  readonly signal: AbortSignal
  /** What the ledger said last, while it waits. */
  verdict: ReserveVerdict | undefined
  fetches: number
  /** Until then nothing is fetched for it again (`performance.now()`). */
  restsUntilMs: number
}

/** One pocket's items. Its holds are in one flight at a time, so that their order stays; its settlements in another. */
export interface Lane {
  readonly accountId: string
  settles: WaitingSettle[]
  reserves: WaitingReserve[]
  settlesFly: boolean
  /** Also while something is fetched for one of its holds. */
  reservesFly: boolean
  /** Set while nobody is asked again: those who wait, wait for money or for a limit. */
  timer: NodeJS.Timeout | undefined
}

export function newLane(accountId: string): Lane {
  return { accountId, settles: [], reserves: [], settlesFly: false, reservesFly: false, timer: undefined }
}

/** How many settlements of a lane could be sent. */
export function sendableSettles(lane: Lane): number {
  return lane.settlesFly ? 0 : lane.settles.length
}

/** How many holds of a lane could be sent: none while those in front rest, and may not be overtaken. */
export function sendableReserves(lane: Lane): number {
  return lane.reservesFly || (lane.timer && !mayBeOvertaken(lane)) ? 0 : lane.reserves.length
}

export function isSendable(lane: Lane): boolean {
  return sendableSettles(lane) + sendableReserves(lane) > 0
}

export function isIdle(lane: Lane): boolean {
  return lane.settles.length + lane.reserves.length === 0 && !lane.settlesFly && !lane.reservesFly
}

/** Who waits for money is not overtaken; who waits for a limit is, by those whom it does not bind. */
export function mayBeOvertaken(lane: Lane): boolean {
  return lane.reserves[0]?.verdict === 'lease_short'
}

/** Whose wait is over is asked in the next batch, however far back it stands, and behind those who still wait. */
export function bringForward(waiting: WaitingReserve[], room: number): WaitingReserve[] {
  const over = new Set(waiting.filter(({ signal }) => signal.aborted).slice(0, room))
  if (over.size === 0) return waiting
  const others = waiting.filter((each) => !over.has(each))
  return [...others.slice(0, room - over.size), ...over, ...others.slice(room - over.size)]
}

/** The first of those who wait that something can be fetched for: money for the first only, leases for any. */
export function firstToFetchFor(waiting: readonly WaitingReserve[]): WaitingReserve | undefined {
  const nowMs = performance.now()
  const blocker = waiting.findIndex(({ verdict }) => verdict === 'busy' || verdict === 'short')
  const candidates = blocker === -1 ? waiting : waiting.slice(0, blocker + 1)
  return candidates.find(
    ({ verdict, restsUntilMs }) => (verdict === 'short' || verdict === 'lease_short') && restsUntilMs <= nowMs,
  )
}

/** Tells a hold its answer, if it does not have to wait on. Returns whether it was told. */
export function tellUnlessItWaits(waiting: WaitingReserve, landed: Landed<ReserveAnswer> | undefined): boolean {
  if (!landed || !('answer' in landed) || !hasToWait(landed.answer)) {
    tell(waiting, landed)
    return true
  }
  waiting.verdict = landed.answer.verdict
  if (waiting.signal.aborted) waiting.resolve({ ...landed.answer, verdict: 'busy' })
  return waiting.signal.aborted
}

export function tell<Item extends { readonly holdId: string }, Answer extends { readonly holdId: string }>(
  waiting: Waiting<Item, Answer>,
  landed: Landed<Answer> | undefined,
): void {
  if (landed && 'answer' in landed && landed.answer.holdId === waiting.item.holdId) waiting.resolve(landed.answer)
  else if (landed && 'error' in landed) waiting.reject(landed.error)
  else waiting.reject(new Error('the ledger answered for another hold'))
}
