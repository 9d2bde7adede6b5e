import { isRecord, numberOrNull, stringOrNull } from './json.ts'

const holdPoints = ['before-answer', 'mid-stream'] as const
export type HoldPoint = (typeof holdPoints)[number]

/** What a request must be to be held, and whom to tell. */
export interface HoldOrder {
  readonly model: string | null
  readonly callKey: string | null
  /** Lets so many matching requests pass first. */
  readonly afterRequests: number
  /** Only requests whose message text contains this. */
  readonly matching: string | null
  readonly notifyUrl: string | null
  readonly at: HoldPoint
}

export interface HeldRequest {
  readonly callKey: string | null
  readonly attempt: number | null
  readonly model: string
}

/** The life of a hold, in order; a request is held in `holding` only. */
export type HoldState = 'armed' | 'taken' | 'holding' | 'released' | 'dropped'

export interface HoldView extends HoldOrder {
  readonly id: string
  readonly state: HoldState
  readonly request: HeldRequest | null
  /** Why the notification did not arrive, if it did not. */
  readonly notifyError: string | null
}

interface Hold extends HoldOrder {
  readonly id: string
  readonly release: PromiseWithResolvers<void>
  passed: number
  state: HoldState
  request: HeldRequest | null
  notifyError: string | null
}

/** A hold that nobody releases ends by itself: no test or demo waits longer. */
const LONGEST_HOLD_MS = 600_000
const NOTIFY_TIMEOUT_MS = 5000

/** Requests that are kept open on demand, each by one armed hold. */
export class HoldBook {
  readonly #holds: Hold[] = []

  arm(order: HoldOrder): HoldView {
    const id = `hold-${this.#holds.length + 1}`
    const hold: Hold = {
      ...order,
      id,
      release: Promise.withResolvers(),
      passed: 0,
      state: 'armed',
      request: null,
      notifyError: null,
    }
    this.#holds.push(hold)
    return toView(hold)
  }

  list(): readonly HoldView[] {
    return this.#holds.map(toView)
  }

  /** Ends a hold, also one that no request has met yet; null when there is none of that id. */
  release(id: string): HoldView | null {
    const hold = this.#holds.find((each) => each.id === id)
    if (hold === undefined) return null
    if (hold.state !== 'dropped') hold.state = 'released'
    hold.release.resolve()
    return toView(hold)
  }

  /** Counts the request for every armed hold that it matches; the first that is due takes it. */
  take(request: HeldRequest, text: string): { readonly id: string; readonly at: HoldPoint } | null {
    const matching = this.#holds.filter((hold) => hold.state === 'armed' && matches(hold, request, text))
    const due = matching.find((hold) => hold.passed >= hold.afterRequests)
    for (const hold of matching) hold.passed += 1
    if (due === undefined) return null
    due.state = 'taken'
    due.request = request
    return { id: due.id, at: due.at }
  }

  /** Keeps the request until it is released, its client is gone, or the longest hold has passed. */
  async wait(id: string, clientGone: AbortSignal): Promise<void> {
    const hold = this.#holds.find((each) => each.id === id)
    if (hold === undefined || hold.state !== 'taken') return
    hold.state = 'holding'
    const gone = Promise.withResolvers<void>()
    const drop = (): void => {
      if (hold.state === 'holding') hold.state = 'dropped'
      gone.resolve()
    }
    const timer = setTimeout(drop, LONGEST_HOLD_MS)
    clientGone.addEventListener('abort', drop, { once: true })
    if (clientGone.aborted) drop()
    else void notify(hold)
    await Promise.race([hold.release.promise, gone.promise])
    clearTimeout(timer)
    clientGone.removeEventListener('abort', drop)
  }
}

/** Reads the body of `POST /_control/holds`; the error names the field that is wrong. */
export function parseHoldOrder(value: unknown): HoldOrder {
  if (!isRecord(value)) throw new TypeError('a hold must be an object')
  const known = ['model', 'callKey', 'afterRequests', 'matching', 'notifyUrl', 'at']
  const unknown = Object.keys(value).find((name) => !known.includes(name))
  if (unknown !== undefined) throw new TypeError(`unknown hold field: ${unknown}`)
  const at = holdPoints.find((point) => point === (value['at'] ?? 'before-answer'))
  if (at === undefined) throw new TypeError(`at must be one of ${holdPoints.join(', ')}`)
  const notifyUrl = stringOrNull(value['notifyUrl'])
  if (notifyUrl !== null && !isLoopback(notifyUrl)) throw new TypeError('notifyUrl must be an http URL of this machine')
  return {
    model: stringOrNull(value['model']),
    callKey: stringOrNull(value['callKey']),
    afterRequests: numberOrNull(value['afterRequests']) ?? 0,
    matching: stringOrNull(value['matching']),
    notifyUrl,
    at,
  }
}

function matches(hold: Hold, request: HeldRequest, text: string): boolean {
  return (
    (hold.model === null || hold.model === request.model) &&
    (hold.callKey === null || hold.callKey === request.callKey) &&
    (hold.matching === null || text.includes(hold.matching))
  )
}

/** Tells the test or demo that its request is being held; a failure is shown with the hold and holds nothing up. */
async function notify(hold: Hold): Promise<void> {
  if (hold.notifyUrl === null) return
  try {
    const response = await fetch(hold.notifyUrl, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ holdId: hold.id, ...hold.request }),
      signal: AbortSignal.timeout(NOTIFY_TIMEOUT_MS),
    })
    await response.body?.cancel()
    if (!response.ok) hold.notifyError = `answered ${response.status}`
  } catch (error) {
    hold.notifyError = String(error)
  }
}

function isLoopback(text: string): boolean {
  const url = URL.parse(text)
  return url?.protocol === 'http:' && ['127.0.0.1', 'localhost', '[::1]'].includes(url.hostname)
}

function toView(hold: Hold): HoldView {
  const { id, state, request, notifyError, model, callKey, afterRequests, matching, notifyUrl, at } = hold
  return { id, state, request, notifyError, model, callKey, afterRequests, matching, notifyUrl, at }
}
