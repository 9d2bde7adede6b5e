import { placeOf, RUN_ACTIONS, RUN_PLACES, verdictOn } from '#domain/run-actions.ts'
import { RUN_STATES } from '#domain/run-states.ts'
import { expect, test } from 'vitest'

test('a finished run takes no action, and one that ends takes none that would let it go on', () => {
  for (const action of RUN_ACTIONS) expect(verdictOn(action, 'finished')).toBe('run_finished')
  for (const place of ['wrapping_up', 'ending'] as const) {
    for (const action of ['pause', 'resume', 'top_up', 'answer'] as const) {
      expect(verdictOn(action, place)).toBe('run_finished')
    }
  }
})

test('a run that is not over can be cancelled from everywhere, and cancelling twice is no fault', () => {
  for (const place of RUN_PLACES.filter((each) => each !== 'finished')) {
    for (const action of ['cancel', 'wrap_up'] as const) expect(['do', 'nothing']).toContain(verdictOn(action, place))
  }
})

test('work outside that is done ends a run from wherever it goes on, and twice is no fault', () => {
  for (const place of ['queued', 'running', 'paused_by_owner', 'money_exhausted', 'input'] as const) {
    expect(verdictOn('end', place)).toBe('do')
  }
  expect(verdictOn('end', 'ending')).toBe('nothing')
  expect(verdictOn('end', 'wrapping_up')).toBe('run_finished')
})

test('each state has a place, and a run that ends is at none where it goes on', () => {
  for (const state of RUN_STATES) {
    const row = { state, reason: null, isEnding: false, isWrappingUp: false }
    expect(RUN_PLACES).toContain(placeOf(row))
    expect(['ending', 'finished']).toContain(placeOf({ ...row, isEnding: true }))
    expect(['wrapping_up', 'finished']).toContain(placeOf({ ...row, isEnding: true, isWrappingUp: true }))
  }
})
