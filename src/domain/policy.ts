/** How one attempt ended. "Hold refused" is an outcome like any other. */
export const OUTCOMES = Object.freeze([
  'answered',
  'hold_refused',
  'not_sent',
  'rate_limited',
  'overloaded',
  'network_before_send',
  'network_after_send',
  'timeout',
  'cut_stream',
  'malformed_answer',
  'content_filter',
  'invalid_request',
  'authentication',
  'quota_gone',
  'context_too_long',
  'model_not_found',
  'aborted',
  'lost',
] as const)

export type Outcome = (typeof OUTCOMES)[number]

interface Rule {
  /** How many more times this route may be tried after this outcome. */
  readonly retriesHere: number
  /** What follows once those are used up. */
  readonly then: 'next_route' | 'stop'
  /** Whether the provider may have executed the request, so that going on may pay twice for one answer. */
  readonly mayHaveRun: boolean
}

/** One row per outcome; the whole retry policy of the product is this table and `decide`. */
const rules = {
  answered: { retriesHere: 0, then: 'stop', mayHaveRun: true },
  hold_refused: { retriesHere: 0, then: 'next_route', mayHaveRun: false },
  not_sent: { retriesHere: 2, then: 'next_route', mayHaveRun: false },
  rate_limited: { retriesHere: 1, then: 'next_route', mayHaveRun: false },
  overloaded: { retriesHere: 1, then: 'next_route', mayHaveRun: false },
  network_before_send: { retriesHere: 1, then: 'next_route', mayHaveRun: false },
  network_after_send: { retriesHere: 1, then: 'next_route', mayHaveRun: true },
  timeout: { retriesHere: 0, then: 'next_route', mayHaveRun: true },
  cut_stream: { retriesHere: 1, then: 'next_route', mayHaveRun: true },
  malformed_answer: { retriesHere: 0, then: 'next_route', mayHaveRun: true },
  content_filter: { retriesHere: 0, then: 'stop', mayHaveRun: true },
  invalid_request: { retriesHere: 0, then: 'stop', mayHaveRun: false },
  authentication: { retriesHere: 0, then: 'next_route', mayHaveRun: false },
  quota_gone: { retriesHere: 0, then: 'next_route', mayHaveRun: false },
  context_too_long: { retriesHere: 0, then: 'next_route', mayHaveRun: false },
  model_not_found: { retriesHere: 0, then: 'next_route', mayHaveRun: false },
  aborted: { retriesHere: 1, then: 'stop', mayHaveRun: true },
  lost: { retriesHere: 1, then: 'next_route', mayHaveRun: true },
} as const satisfies Record<Outcome, Rule>

/** What the policy needs to know of an attempt that is over. */
export interface PastAttempt {
  readonly number: number
  readonly route: string
  readonly outcome: Outcome
  /** What the provider asked for, already parsed, in milliseconds. */
  readonly retryAfterMs?: number
  /** How long ago it ended, in milliseconds: what a wait has used up already, here or in another process. */
  readonly sinceMs: number
  /** How long its request took, in milliseconds. */
  readonly tookMs: number
}

/** A route as it stands: its circuit or its own limits may keep requests from it for a while. */
export interface RouteState {
  readonly name: string
  /** In how many milliseconds it may be tried; zero: now. */
  readonly readyInMs: number
}

export interface PolicyInput {
  /** Routes that may serve this call, best first. */
  readonly routes: readonly RouteState[]
  /** Attempts so far, by number. Refused holds of an earlier pass are left out: the money may be back. */
  readonly attempts: readonly PastAttempt[]
  /** How often a call may be sent again after an attempt that may have been executed. */
  readonly mayRepeat: number
  /** How often besides that, because a person who was asked has allowed it: then also on a route that would be left. */
  readonly granted?: number
  /** Its caller came back: what was aborted may be sent again. */
  readonly again?: boolean
  /** Most attempts of one call, refused holds not counted. */
  readonly maxAttempts: number
  /** Longest time that requests take together before there is no other, in milliseconds. */
  readonly maxTotalMs: number
  /** In [0, 1): spreads the waits of many callers. */
  readonly jitter: number
}

export type StopReason =
  | 'answered'
  | 'money_exhausted'
  | 'routes_exhausted'
  | 'routes_unavailable'
  | 'repeat_not_allowed'
  | 'attempts_exhausted'
  | 'time_exhausted'
  | 'refused_by_provider'
  | 'aborted'

export type Decision =
  | {
      readonly kind: 'try'
      readonly route: string
      readonly afterMs: number
      readonly why: 'first' | 'retry' | 'fallback'
    }
  | { readonly kind: 'stop'; readonly reason: StopReason }

const BACKOFF_BASE_MS = 250
const BACKOFF_MAX_MS = 15_000
/** A provider may ask for more patience than a run has: beyond this the next route is the better answer. */
const RETRY_AFTER_MAX_MS = 60_000
/** All who were told the same moment do not come back in the same moment, and none before it. */
const RETRY_AFTER_SPREAD = 0.1

export function mayHaveRun(outcome: Outcome): boolean {
  return rules[outcome].mayHaveRun
}

const PASSING: ReadonlySet<Outcome> = new Set(['not_sent', 'rate_limited', 'overloaded', 'network_before_send'])

/** Whether a provider that ended an attempt so was away or busy: nothing was executed, and it may be there again soon. */
export function isPassing(outcome: Outcome): boolean {
  return PASSING.has(outcome)
}

/** Given the attempts so far, what to do next. Pure: the same input gives the same decision. */
export function decide(input: PolicyInput): Decision {
  const last = input.attempts.at(-1)
  if (!last) return nextRoute(input)
  const rule: Rule = rules[last.outcome]
  const reason = finalReason(last.outcome, input) ?? boundReason(input)
  if (reason) return { kind: 'stop', reason }
  return retryHere(input, last, rule) ?? nextRoute(input)
}

/** What ends a call however its last attempt ended. */
function boundReason({
  attempts,
  maxAttempts,
  maxTotalMs,
  mayRepeat,
  granted = 0,
}: PolicyInput): StopReason | undefined {
  const sent = attempts.filter((attempt) => attempt.outcome !== 'hold_refused')
  if (sent.length >= maxAttempts) return 'attempts_exhausted'
  if (sent.filter((attempt) => mayHaveRun(attempt.outcome)).length > mayRepeat + granted) return 'repeat_not_allowed'
  // Only of requests: a person may have paused the run between two of them, or there was no money, or no process.
  return sent.reduce((sum, { tookMs }) => sum + tookMs, 0) > maxTotalMs ? 'time_exhausted' : undefined
}

function finalReason(outcome: Outcome, { again }: PolicyInput): StopReason | undefined {
  if (outcome === 'answered') return 'answered'
  if (outcome === 'aborted') return again ? undefined : 'aborted'
  return rules[outcome].then === 'stop' ? 'refused_by_provider' : undefined
}

/** The same route once more, unless it is closed for longer than it takes to go on to another. */
function retryHere(input: PolicyInput, last: PastAttempt, rule: Rule): Decision | undefined {
  const state = input.routes.find(({ name }) => name === last.route)
  if (!state || (last.retryAfterMs ?? 0) > RETRY_AFTER_MAX_MS) return undefined
  const same = input.attempts.filter((attempt) => attempt.route === last.route && attempt.outcome === last.outcome)
  if (same.length > rule.retriesHere + (rule.mayHaveRun ? (input.granted ?? 0) : 0)) return undefined
  const afterMs = Math.max(0, waitMs(input, last) - last.sinceMs)
  if (
    state.readyInMs > afterMs + BACKOFF_BASE_MS &&
    (untried(input).length > 0 || state.readyInMs > RETRY_AFTER_MAX_MS)
  )
    return undefined
  return { kind: 'try', route: last.route, afterMs: Math.max(afterMs, state.readyInMs), why: 'retry' }
}

/** The best route that was not tried; when none of those is open, the one that opens first. */
function nextRoute(input: PolicyInput): Decision {
  const why = input.attempts.length > 0 ? 'fallback' : 'first'
  const left = untried(input)
  const ready = left.find(({ readyInMs }) => readyInMs <= 0)
  if (ready) return { kind: 'try', route: ready.name, afterMs: 0, why }
  const [soonest] = left.toSorted((one, other) => one.readyInMs - other.readyInMs)
  if (soonest && soonest.readyInMs <= RETRY_AFTER_MAX_MS)
    return { kind: 'try', route: soonest.name, afterMs: soonest.readyInMs, why }
  if (input.attempts.some((attempt) => attempt.outcome === 'hold_refused'))
    return { kind: 'stop', reason: 'money_exhausted' }
  return { kind: 'stop', reason: soonest ? 'routes_unavailable' : 'routes_exhausted' }
}

function untried({ routes, attempts }: PolicyInput): readonly RouteState[] {
  const tried = new Set(attempts.map((attempt) => attempt.route))
  return routes.filter(({ name }) => !tried.has(name))
}

function waitMs(input: PolicyInput, last: PastAttempt): number {
  if (last.retryAfterMs !== undefined) return Math.round(last.retryAfterMs * (1 + input.jitter * RETRY_AFTER_SPREAD))
  if (last.outcome === 'lost' || last.outcome === 'not_sent') return 0
  const tries = input.attempts.filter((attempt) => attempt.route === last.route).length
  const backoff = Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** (tries - 1))
  return Math.round(backoff * (0.5 + input.jitter / 2))
}
