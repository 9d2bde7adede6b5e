import {
  decide,
  mayHaveRun,
  OUTCOMES,
  type Outcome,
  type PastAttempt,
  type PolicyInput,
  type RouteState,
} from '#domain/policy.ts'
import fc from 'fast-check'
import { expect, test } from 'vitest'

const routes = ready('a', 'b', 'c')

function ready(...names: readonly string[]): readonly RouteState[] {
  return names.map((name) => ({ name, readyInMs: 0 }))
}

function input(attempts: readonly Omit<PastAttempt, 'number'>[], change: Partial<PolicyInput> = {}): PolicyInput {
  const numbered = attempts.map((attempt, index) => ({ ...attempt, number: index + 1 }))
  return { routes, attempts: numbered, mayRepeat: 1, maxAttempts: 8, maxTotalMs: 60_000, jitter: 0, ...change }
}

const on = (route: string, outcome: Outcome, retryAfterMs?: number) => ({
  route,
  outcome,
  sinceMs: 0,
  tookMs: 0,
  ...(retryAfterMs !== undefined && { retryAfterMs }),
})

test('the first attempt takes the first route', () => {
  expect(decide(input([]))).toEqual({ kind: 'try', route: 'a', afterMs: 0, why: 'first' })
})

test('without a route there is nothing to try', () => {
  expect(decide(input([], { routes: [] }))).toEqual({ kind: 'stop', reason: 'routes_exhausted' })
})

test.each<[Outcome, ReturnType<typeof decide>]>([
  ['answered', { kind: 'stop', reason: 'answered' }],
  ['hold_refused', { kind: 'try', route: 'b', afterMs: 0, why: 'fallback' }],
  ['not_sent', { kind: 'try', route: 'a', afterMs: 0, why: 'retry' }],
  ['rate_limited', { kind: 'try', route: 'a', afterMs: 125, why: 'retry' }],
  ['overloaded', { kind: 'try', route: 'a', afterMs: 125, why: 'retry' }],
  ['network_before_send', { kind: 'try', route: 'a', afterMs: 125, why: 'retry' }],
  ['network_after_send', { kind: 'try', route: 'a', afterMs: 125, why: 'retry' }],
  ['timeout', { kind: 'try', route: 'b', afterMs: 0, why: 'fallback' }],
  ['cut_stream', { kind: 'try', route: 'a', afterMs: 125, why: 'retry' }],
  ['malformed_answer', { kind: 'try', route: 'b', afterMs: 0, why: 'fallback' }],
  ['content_filter', { kind: 'stop', reason: 'refused_by_provider' }],
  ['invalid_request', { kind: 'stop', reason: 'refused_by_provider' }],
  ['authentication', { kind: 'try', route: 'b', afterMs: 0, why: 'fallback' }],
  ['quota_gone', { kind: 'try', route: 'b', afterMs: 0, why: 'fallback' }],
  ['context_too_long', { kind: 'try', route: 'b', afterMs: 0, why: 'fallback' }],
  ['model_not_found', { kind: 'try', route: 'b', afterMs: 0, why: 'fallback' }],
  ['aborted', { kind: 'stop', reason: 'aborted' }],
  ['lost', { kind: 'try', route: 'a', afterMs: 0, why: 'retry' }],
])('after one %s the decision is %j', (outcome, expected) => {
  expect(decide(input([on('a', outcome)]))).toEqual(expected)
})

test('the provider is waited for as long as it asks, but not for more than a minute', () => {
  expect(decide(input([on('a', 'rate_limited', 2_000)]))).toMatchObject({ route: 'a', afterMs: 2_000, why: 'retry' })
  expect(decide(input([on('a', 'rate_limited', 61_000)]))).toMatchObject({ route: 'b', why: 'fallback' })
})

test('a wait that is used up already is not begun anew', () => {
  const failed = { ...on('a', 'rate_limited', 20_000), sinceMs: 15_000 }
  expect(decide(input([failed]))).toMatchObject({ route: 'a', afterMs: 5_000 })
  expect(decide(input([{ ...failed, sinceMs: 25_000 }]))).toMatchObject({ route: 'a', afterMs: 0 })
})

test('those who were told the same moment come back at different ones, and none before it', () => {
  const waits = [0, 0.5, 0.99].map((jitter) => decide(input([on('a', 'rate_limited', 2_000)], { jitter })))
  expect(waits.map((each) => (each.kind === 'try' ? each.afterMs : -1))).toEqual([2_000, 2_100, 2_198])
})

test('a route that is closed for a while is passed over, and waited for when there is no other', () => {
  const closed = (name: string, readyInMs: number) => ({ name, readyInMs })
  const [a, b] = [closed('a', 5_000), closed('b', 9_000)]
  expect(decide(input([], { routes: [a, ...ready('b')] }))).toMatchObject({ route: 'b', afterMs: 0, why: 'first' })
  expect(decide(input([], { routes: [a, b] }))).toMatchObject({ route: 'a', afterMs: 5_000, why: 'first' })
  expect(decide(input([], { routes: [closed('a', 61_000)] }))).toEqual({ kind: 'stop', reason: 'routes_unavailable' })
})

test('a retry goes to another route when its own has closed meanwhile, and waits for it when there is no other', () => {
  const failed = [on('a', 'overloaded')]
  const routes = [{ name: 'a', readyInMs: 10_000 }, ...ready('b')]
  expect(decide(input(failed, { routes }))).toMatchObject({ route: 'b', why: 'fallback' })
  expect(decide(input(failed, { routes: routes.slice(0, 1) }))).toMatchObject({ route: 'a', afterMs: 10_000 })
})

test('a call whose requests took too long together is given up, and time between them does not count', () => {
  const long = { ...on('a', 'rate_limited'), tookMs: 30_001 }
  expect(decide(input([long, long]))).toEqual({ kind: 'stop', reason: 'time_exhausted' })
  expect(decide(input([{ ...long, sinceMs: 86_400_000 }]))).toMatchObject({ kind: 'try' })
})

test('a call is repeated after a possible execution only as often as its owner allows', () => {
  const once = [on('a', 'timeout')]
  expect(decide(input(once, { mayRepeat: 0 }))).toEqual({ kind: 'stop', reason: 'repeat_not_allowed' })
  expect(decide(input([...once, on('b', 'lost')]))).toEqual({ kind: 'stop', reason: 'repeat_not_allowed' })
  expect(decide(input([...once, on('b', 'rate_limited')]))).toMatchObject({ kind: 'try', route: 'b' })
})

test('a repeat that a person has allowed goes to the same route when there is no other, and no further', () => {
  const once = [on('a', 'malformed_answer')]
  const one = { routes: [{ name: 'a', readyInMs: 0 }], mayRepeat: 0 }
  expect(decide(input(once, one))).toEqual({ kind: 'stop', reason: 'repeat_not_allowed' })
  expect(decide(input(once, { ...one, granted: 1 }))).toMatchObject({ kind: 'try', route: 'a', why: 'retry' })
  const twice = [...once, on('a', 'malformed_answer')]
  expect(decide(input(twice, { ...one, granted: 1 }))).toEqual({ kind: 'stop', reason: 'repeat_not_allowed' })
})

test('when every route was tried and money was missing for one, money is what stops the call', () => {
  const attempts = [on('a', 'hold_refused'), on('b', 'quota_gone'), on('c', 'authentication')]
  expect(decide(input(attempts))).toEqual({ kind: 'stop', reason: 'money_exhausted' })
  expect(decide(input(attempts.slice(1), { routes: ready('b', 'c') }))).toEqual({
    kind: 'stop',
    reason: 'routes_exhausted',
  })
})

test('whatever a provider does, a call ends, within its attempts and its repeats', () => {
  const script = fc.array(fc.constantFrom(...OUTCOMES), { minLength: 40, maxLength: 40 })
  fc.assert(
    fc.property(script, fc.integer({ min: 0, max: 5 }), (outcomes, mayRepeat) => {
      const attempts: Omit<PastAttempt, 'number'>[] = []
      for (const outcome of outcomes) {
        const decision = decide(input(attempts, { mayRepeat }))
        if (decision.kind === 'stop') return
        attempts.push(on(decision.route, outcome))
        const sent = attempts.filter((attempt) => attempt.outcome !== 'hold_refused')
        expect(sent.length).toBeLessThanOrEqual(8)
        const before = sent.slice(0, -1).filter((attempt) => mayHaveRun(attempt.outcome))
        expect(before.length).toBeLessThanOrEqual(mayRepeat)
      }
      expect.fail('the policy did not stop')
    }),
  )
})
