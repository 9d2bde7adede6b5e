/** What a run can be. Terminal only when its envelope is closed. */
export type RunState = 'queued' | 'running' | 'paused' | 'completed' | 'partial' | 'cancelled' | 'failed'

const transitions = {
  queued: ['running', 'paused', 'cancelled', 'failed'],
  running: ['paused', 'completed', 'partial', 'cancelled', 'failed'],
  // Back to queued: it was paused before it began. Completed: what was in flight was its last step.
  paused: ['queued', 'running', 'completed', 'partial', 'cancelled', 'failed'],
  completed: [],
  partial: [],
  cancelled: [],
  failed: [],
} as const satisfies Record<RunState, readonly RunState[]>

export const RUN_STATES = Object.freeze([
  'queued',
  'running',
  'paused',
  'completed',
  'partial',
  'cancelled',
  'failed',
] as const satisfies readonly RunState[])

export function mayBecome(from: RunState, to: RunState): boolean {
  const targets: readonly RunState[] = transitions[from]
  return targets.includes(to)
}

export function isTerminal(state: RunState): boolean {
  return transitions[state].length === 0
}
