import { isTerminal, mayBecome, RUN_STATES } from '#domain/run-states.ts'
import { expect, test } from 'vitest'

test('a run can leave every state but the final ones', () => {
  for (const state of RUN_STATES) {
    const targets = RUN_STATES.filter((target) => mayBecome(state, target))
    expect(targets.length === 0).toBe(isTerminal(state))
  }
})

test('a run that is not over can always be cancelled, and only one that was paused becomes queued again', () => {
  for (const state of RUN_STATES) {
    expect(mayBecome(state, 'cancelled')).toBe(!isTerminal(state))
    expect(mayBecome(state, 'queued')).toBe(state === 'paused')
  }
})
