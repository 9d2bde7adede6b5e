import { isTerminal, type RunState } from './run-states.ts'

/** What a person may ask of a run. `cancel`: now; `wrap_up`: it delivers first; `end`: its work outside is done. */
export const RUN_ACTIONS = Object.freeze(['pause', 'resume', 'top_up', 'cancel', 'wrap_up', 'answer', 'end'] as const)
export type RunAction = (typeof RUN_ACTIONS)[number]

/** Where a run stands for those who act on it: its state, and why it is paused, or how far its end is. */
export const RUN_PLACES = Object.freeze([
  'queued',
  'running',
  'paused_by_owner',
  'money_exhausted',
  'input',
  'wrapping_up',
  'ending',
  'finished',
] as const)
export type RunPlace = (typeof RUN_PLACES)[number]

/** `nothing`: it is so already. All but these two are refusals. */
export type ActionVerdict = 'do' | 'nothing' | 'not_paused' | 'waits_for_answer' | 'run_finished'

const OVER = { wrapping_up: 'run_finished', ending: 'run_finished', finished: 'run_finished' } as const
const ALIVE = { queued: 'do', running: 'do', paused_by_owner: 'do', money_exhausted: 'do', input: 'do' } as const

const verdicts = {
  // Paused for money or for input, it becomes its owner's pause: then no top-up and no answer lets it go on.
  pause: { ...ALIVE, ...OVER, paused_by_owner: 'nothing' },
  resume: { ...ALIVE, ...OVER, queued: 'not_paused', running: 'not_paused', input: 'waits_for_answer' },
  top_up: { ...ALIVE, ...OVER },
  // The second one ends a run that takes too long to deliver.
  cancel: { ...ALIVE, ...OVER, wrapping_up: 'do', ending: 'nothing' },
  wrap_up: { ...ALIVE, ...OVER, wrapping_up: 'nothing', ending: 'nothing' },
  answer: { ...ALIVE, ...OVER },
  end: { ...ALIVE, ...OVER, ending: 'nothing' },
} as const satisfies Record<RunAction, Record<RunPlace, ActionVerdict>>

export function verdictOn(action: RunAction, place: RunPlace): ActionVerdict {
  return verdicts[action][place]
}

export function placeOf(run: {
  readonly state: RunState
  readonly reason: string | null
  readonly isEnding: boolean
  /** Its money is frozen but for its reserve, and it delivers. */
  readonly isWrappingUp: boolean
}): RunPlace {
  const { state, reason } = run
  if (isTerminal(state)) return 'finished'
  if (run.isWrappingUp) return 'wrapping_up'
  if (run.isEnding) return 'ending'
  if (state !== 'paused') return state === 'queued' ? 'queued' : 'running'
  return reason === 'money_exhausted' || reason === 'input' ? reason : 'paused_by_owner'
}
