import type { Outcome } from './policy.ts'

/**
 * What an attempt's end says of its route. `well`: it works. `ill`: it may not. `gone`: it will not until somebody does
 * something about our account. `limited`: it works, and wants to be left alone for a while. `silent`: nothing.
 */
export type Sign = 'well' | 'ill' | 'gone' | 'limited' | 'silent'

/** One row per outcome: what opens a circuit is this table and `shouldOpen`. */
const signs = {
  answered: 'well',
  hold_refused: 'silent',
  not_sent: 'silent',
  rate_limited: 'limited',
  overloaded: 'ill',
  network_before_send: 'ill',
  network_after_send: 'ill',
  timeout: 'ill',
  cut_stream: 'ill',
  malformed_answer: 'ill',
  content_filter: 'silent',
  invalid_request: 'silent',
  authentication: 'gone',
  quota_gone: 'gone',
  context_too_long: 'silent',
  model_not_found: 'ill',
  aborted: 'silent',
  lost: 'silent',
} as const satisfies Record<Outcome, Sign>

export function signOf(outcome: Outcome): Sign {
  return signs[outcome]
}

/** What is known of a route's attempts since its circuit last changed. */
export interface Tally {
  /** Failures since the last answer, those that other processes have told of included. */
  readonly failures: number
  /** Whether each of the latest attempts of this process failed, oldest first. */
  readonly recent: readonly boolean[]
}

export const EMPTY_TALLY: Tally = Object.freeze({ failures: 0, recent: Object.freeze([]) })

/** So many failures in a row open a circuit, over all processes: fewer are everyday weather. */
export const FAILURES_IN_A_ROW = 5
/** A route that fails now and then is caught by the share of its latest attempts that failed. */
const RECENT = 20
const FAILED_OF_RECENT = 10

/** The tally after one more attempt. Only what says something of the route is counted. */
export function tallied(tally: Tally, sign: Sign): Tally {
  if (sign === 'silent' || sign === 'limited') return tally
  const hasFailed = sign !== 'well'
  return {
    failures: hasFailed ? tally.failures + 1 : 0,
    recent: [...tally.recent, hasFailed].slice(-RECENT),
  }
}

/** Whether a closed circuit opens, given what the last attempt has said of the route. */
export function shouldOpen(tally: Tally, last: Sign): boolean {
  if (last === 'gone') return true
  if (last === 'well') return false
  return tally.failures >= FAILURES_IN_A_ROW || tally.recent.filter(Boolean).length >= FAILED_OF_RECENT
}

const OPEN_BASE_MS = 5_000
const OPEN_MAX_MS = 300_000
/** Of an account that is refused or has no money: that takes a person. */
const GONE_BASE_MS = 60_000
const GONE_MAX_MS = 1_800_000
/** A provider that asks for more patience is asked again after this all the same. */
const RETRY_AFTER_MAX_MS = 900_000

/**
 * How long a circuit stays open before a probe, in milliseconds: twice as long after each probe that failed, and never
 * less than the provider asked for. The jitter makes it up to a fifth longer.
 */
export function openForMs(opening: {
  /** How often in a row it has opened, this time included. */
  readonly openings: number
  readonly sign: Sign
  readonly retryAfterMs: number | null
  /** In [0, 1). */
  readonly jitter: number
}): number {
  const [baseMs, maxMs] = opening.sign === 'gone' ? [GONE_BASE_MS, GONE_MAX_MS] : [OPEN_BASE_MS, OPEN_MAX_MS]
  const grownMs = Math.min(maxMs, baseMs * 2 ** Math.min(20, Math.max(0, opening.openings - 1)))
  const waitMs = Math.max(grownMs, pauseForMs(opening.retryAfterMs))
  return Math.round(waitMs * (1 + opening.jitter / 5))
}

/** How long a route is left alone that asked for it, in milliseconds; 0 when it did not say how long. */
export function pauseForMs(retryAfterMs: number | null): number {
  return Math.min(RETRY_AFTER_MAX_MS, Math.max(0, retryAfterMs ?? 0))
}
