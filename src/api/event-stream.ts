import { isLastEvent, type EventView } from '#contracts/api-event.ts'
import { toAmount, formatNano } from '#domain/money.ts'
import type { RunEvent } from '#db/event.ts'
import { setTimeout as delay } from 'node:timers/promises'

/** Events of one page, and of one read of a stream. */
export const EVENTS_PER_PAGE = 200

/** How soon an event is told. A notification for each would serialise the commits of the calls that write them. */
const POLL_MS = 250
const HEARTBEAT_MS = 15_000
/** How often a key is looked at: with the wait for the next read, one that is revoked hears nothing a second later. */
const KEY_CHECK_MS = 500
/** How long a client waits before it asks again, in milliseconds. */
const RETRY_MS = 1_000

export interface EventSource {
  /** What follows a place, at most `EVENTS_PER_PAGE`. */
  read(after: string | undefined): Promise<readonly EventView[]>
  /** Whether the run's last event stands at this place or before it. */
  isOverAt(place: string): Promise<boolean>
  /** Asked before a read, twice a second, however much there is to tell: a revoked key ends its streams. */
  mayGoOn(): Promise<boolean>
}

/**
 * The events of a run as server-sent events, from a place on until the run's last one. Ends early when aborted, or when
 * a read fails: the client comes back with the id of the last event it has.
 */
export async function* streamEvents(
  source: EventSource,
  options: { readonly after: string | undefined; readonly signal: AbortSignal; readonly nowMs: () => number },
): AsyncGenerator<string> {
  const { signal, nowMs } = options
  let { after } = options
  let isOver = after !== undefined && (await source.isOverAt(after))
  let toldMs = nowMs()
  let checkedMs = toldMs
  yield `retry: ${RETRY_MS}\n\n`
  while (!signal.aborted) {
    if (nowMs() - checkedMs >= KEY_CHECK_MS) {
      if (!(await source.mayGoOn())) return
      checkedMs = nowMs()
    }
    const events = await source.read(after)
    for (const event of events) yield frame(event)
    after = events.at(-1)?.id ?? after
    isOver ||= events.some(isLastEvent)
    if (events.length > 0) toldMs = nowMs()
    if (isOver && events.length < EVENTS_PER_PAGE) return
    if (nowMs() - toldMs >= HEARTBEAT_MS) {
      toldMs = nowMs()
      yield ': heartbeat\n\n'
    }
    if (events.length < EVENTS_PER_PAGE) await delay(POLL_MS, undefined, { signal }).catch(() => {})
  }
}

/** An event as clients see it: nano become decimal strings in the major unit. */
export function eventView(event: RunEvent): EventView {
  return {
    id: `${event.xid}-${event.seq}`,
    kind: event.kind,
    at: event.recordedAt.toISOString(),
    data: moneyInWords(event.data),
  }
}

function frame(event: EventView): string {
  return `id: ${event.id}\nevent: ${event.kind}\ndata: ${JSON.stringify(event)}\n\n`
}

/** `heldNano: "2350000"` becomes `held: {amount: "0.002350", currency}`, in the currency that stands beside it. */
function moneyInWords(data: unknown): EventView['data'] {
  if (typeof data !== 'object' || data === null) return {}
  const currency = 'currency' in data && typeof data.currency === 'string' ? data.currency : undefined
  return Object.fromEntries(
    Object.entries(data).map(([key, value]: [string, unknown]) => {
      if (!key.endsWith('Nano') || typeof value !== 'string') return [key, value]
      const nano = BigInt(value)
      return [key.slice(0, -'Nano'.length), currency === undefined ? formatNano(nano) : toAmount(nano, currency)]
    }),
  )
}
