import {
  EMPTY_TALLY,
  FAILURES_IN_A_ROW,
  openForMs,
  pauseForMs,
  shouldOpen,
  signOf,
  tallied,
  type Sign,
} from '#domain/circuit.ts'
import { OUTCOMES, type Outcome } from '#domain/policy.ts'
import fc from 'fast-check'
import { expect, test } from 'vitest'

/** Whether the circuit is open after the outcomes, as one process sees it. */
function opensAfter(outcomes: readonly Outcome[], elsewhere = 0): boolean {
  let tally = { ...EMPTY_TALLY, failures: elsewhere }
  for (const outcome of outcomes) {
    tally = tallied(tally, signOf(outcome))
    if (shouldOpen(tally, signOf(outcome))) return true
  }
  return false
}

const times = (count: number, outcome: Outcome) => Array.from({ length: count }, () => outcome)

test.each<[Sign, readonly Outcome[]]>([
  ['well', ['answered']],
  [
    'ill',
    [
      'overloaded',
      'network_before_send',
      'network_after_send',
      'timeout',
      'cut_stream',
      'malformed_answer',
      'model_not_found',
    ],
  ],
  ['gone', ['authentication', 'quota_gone']],
  ['limited', ['rate_limited']],
  ['silent', ['hold_refused', 'not_sent', 'content_filter', 'invalid_request', 'context_too_long', 'aborted', 'lost']],
])('%s is what %j say of a route', (sign, outcomes) => {
  expect(OUTCOMES.filter((outcome) => signOf(outcome) === sign)).toEqual(
    OUTCOMES.filter((outcome) => outcomes.includes(outcome)),
  )
})

test.each<[string, readonly Outcome[], boolean]>([
  ['four failures in a row', times(4, 'overloaded'), false],
  ['five failures in a row', times(5, 'overloaded'), true],
  ['five failures of several kinds', ['timeout', 'cut_stream', 'overloaded', 'network_after_send', 'timeout'], true],
  ['an answer between them', [...times(4, 'timeout'), 'answered', ...times(4, 'timeout')], false],
  [
    'every second attempt failing, ten times',
    Array.from({ length: 10 }, () => ['overloaded', 'answered'] as const).flat(),
    true,
  ],
  [
    'every third attempt failing',
    Array.from({ length: 30 }, () => ['overloaded', 'answered', 'answered'] as const).flat(),
    false,
  ],
  ['a key that is refused', ['authentication'], true],
  ['an account without money', ['quota_gone'], true],
  ['any number of rate limits', times(50, 'rate_limited'), false],
  ['any number of bad requests', times(50, 'invalid_request'), false],
  ['any number of filtered answers', times(50, 'content_filter'), false],
  ['any number of prompts that are too long', times(50, 'context_too_long'), false],
  ['any number of aborts', times(50, 'aborted'), false],
  [
    'bad requests between failures',
    Array.from({ length: 5 }, () => ['invalid_request', 'timeout'] as const).flat(),
    true,
  ],
])('%s: %j opens the circuit: %s', (_, outcomes, expected) => {
  expect(opensAfter(outcomes)).toBe(expected)
})

test('failures that other processes have told of count with the own ones', () => {
  expect(opensAfter(['timeout'], FAILURES_IN_A_ROW - 1)).toBe(true)
  expect(opensAfter(['timeout'], FAILURES_IN_A_ROW - 2)).toBe(false)
  expect(opensAfter(['answered'], FAILURES_IN_A_ROW)).toBe(false)
})

test('it stays open for longer after each probe that failed, within bounds, and for at least what was asked', () => {
  const forMs = (openings: number, change: Partial<Parameters<typeof openForMs>[0]> = {}) =>
    openForMs({ openings, sign: 'ill', retryAfterMs: null, jitter: 0, ...change })
  expect([1, 2, 3, 4].map((openings) => forMs(openings))).toEqual([5_000, 10_000, 20_000, 40_000])
  expect(forMs(1_000)).toBe(300_000)
  expect(forMs(1, { sign: 'gone' })).toBe(60_000)
  expect(forMs(1_000, { sign: 'gone' })).toBe(1_800_000)
  expect(forMs(1, { retryAfterMs: 30_000 })).toBe(30_000)
  expect(forMs(1, { retryAfterMs: 86_400_000 })).toBe(900_000)
  expect(forMs(1, { jitter: 0.5 })).toBe(5_500)
})

test('a rate limit pauses for what was asked, within bounds, and not at all when nothing was', () => {
  expect([null, 0, 2_000, 86_400_000].map(pauseForMs)).toEqual([0, 0, 2_000, 900_000])
})

test('whatever happens, the tally and the time it stays open are bounded', () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(...OUTCOMES), { maxLength: 200 }),
      fc.integer({ min: 1, max: 1_000_000 }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      fc.option(fc.integer({ min: 0, max: 10 ** 9 })),
      (outcomes, openings, jitter, retryAfterMs) => {
        let tally = EMPTY_TALLY
        for (const outcome of outcomes) tally = tallied(tally, signOf(outcome))
        expect(tally.recent.length).toBeLessThanOrEqual(20)
        for (const sign of ['ill', 'gone'] as const) {
          const ms = openForMs({ openings, sign, jitter, retryAfterMs })
          expect(ms).toBeGreaterThanOrEqual(5_000)
          expect(ms).toBeLessThanOrEqual(2_160_000)
        }
      },
    ),
  )
})
