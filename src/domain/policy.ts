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
  aborted: { retriesHere: 0, then: 'stop', mayHaveRun: true },
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
}

export interface PolicyInput {
  /** Routes that may serve this call, best first. */
  readonly routes: readonly string[]
  /** Attempts so far, by number. Refused holds of an earlier pass are left out: the money may be back. */
  readonly attempts: readonly PastAttempt[]
  /** How often a call may be sent again after an attempt that may have been executed. */
  readonly mayRepeat: number
  /** Most attempts of one call, refused holds not counted. */
  readonly maxAttempts: number
  /** In [0, 1): spreads the waits of many callers. */
  readonly jitter: number
}

export type StopReason =
  | 'answered'
  | 'money_exhausted'
  | 'routes_exhausted'
  | 'repeat_not_allowed'
  | 'attempts_exhausted'
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

export function mayHaveRun(outcome: Outcome): boolean {
  return rules[outcome].mayHaveRun
}

/** Given the attempts so far, what to do next. Pure: the same input gives the same decision. */
export function decide(input: PolicyInput): Decision {
  const last = input.attempts.at(-1)
  if (!last) return firstRoute(input.routes)
  const rule: Rule = rules[last.outcome]
  const final = finalReason(last.outcome)
  if (final) return { kind: 'stop', reason: final }
  const sent = input.attempts.filter((attempt) => attempt.outcome !== 'hold_refused')
  if (sent.length >= input.maxAttempts) return { kind: 'stop', reason: 'attempts_exhausted' }
  const repeats = sent.filter((attempt) => mayHaveRun(attempt.outcome)).length
  if (repeats > input.mayRepeat) return { kind: 'stop', reason: 'repeat_not_allowed' }
  return canRetryHere(input, last, rule)
    ? { kind: 'try', route: last.route, afterMs: Math.max(0, waitMs(input, last) - last.sinceMs), why: 'retry' }
    : nextRoute(input)
}

function firstRoute(routes: readonly string[]): Decision {
  const [route] = routes
  return route === undefined
    ? { kind: 'stop', reason: 'routes_exhausted' }
    : { kind: 'try', route, afterMs: 0, why: 'first' }
}

function finalReason(outcome: Outcome): StopReason | undefined {
  if (outcome === 'answered') return 'answered'
  if (outcome === 'aborted') return 'aborted'
  return rules[outcome].then === 'stop' ? 'refused_by_provider' : undefined
}

function canRetryHere(input: PolicyInput, last: PastAttempt, rule: Rule): boolean {
  if (!input.routes.includes(last.route)) return false
  if ((last.retryAfterMs ?? 0) > RETRY_AFTER_MAX_MS) return false
  const same = input.attempts.filter((attempt) => attempt.route === last.route && attempt.outcome === last.outcome)
  return same.length <= rule.retriesHere
}

function nextRoute(input: PolicyInput): Decision {
  const tried = new Set(input.attempts.map((attempt) => attempt.route))
  const route = input.routes.find((candidate) => !tried.has(candidate))
  if (route !== undefined) return { kind: 'try', route, afterMs: 0, why: tried.size > 0 ? 'fallback' : 'first' }
  const refused = input.attempts.some((attempt) => attempt.outcome === 'hold_refused')
  return { kind: 'stop', reason: refused ? 'money_exhausted' : 'routes_exhausted' }
}

function waitMs(input: PolicyInput, last: PastAttempt): number {
  if (last.retryAfterMs !== undefined) return last.retryAfterMs
  if (last.outcome === 'lost' || last.outcome === 'not_sent') return 0
  const tries = input.attempts.filter((attempt) => attempt.route === last.route).length
  const backoff = Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** (tries - 1))
  return Math.round(backoff * (0.5 + input.jitter / 2))
}
