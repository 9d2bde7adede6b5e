import type { ChatRequest, ChatResult } from '#contracts/activities.ts'
import { askOwner } from './ask.ts'
import { showCall } from './details.ts'
import { chat } from './ports.ts'
import { rest } from './rest.ts'
import type { RunControl } from './run-control.ts'
import { CallFailed } from './stop.ts'

/** Times one call may be put off (paused, frozen, told to wait). Each is some ten events of a history of 51,200. */
const MAX_ROUNDS = 1_000
/** How long calls wait for a provider that is away, in milliseconds, before each new pass over its routes. */
export const OUTAGE_WAITS_MS = [1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 60_000] as const
/** What may be answered to the question whether to send again what may have been executed. */
export const REPEAT = 'repeat'
export const GIVE_UP = 'give up'

export type Answered = Extract<ChatResult, { kind: 'answered' }>
type NotAnswered = Exclude<ChatResult, Answered>

/**
 * One logical call, asked again after every pause and wait. The engine goes on from its stored attempts, so nothing that
 * finished is sent again.
 */
export async function answerOf(control: RunControl, request: ChatRequest): Promise<Answered> {
  const summary = `${request.path} · ${request.model}`
  let repeats = 0
  let passes = 0
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const asked: ChatRequest = {
      ...request,
      ...(control.downgraded && { downgraded: true }),
      ...(repeats > 0 && { repeats }),
      ...(passes > 0 && { again: true }),
    }
    const result = await chat.executeWithOptions({ summary }, [asked])
    if (result.kind === 'answered') {
      showCall(request, result)
      return result
    }
    control.throwIfStopped()
    const outageMs = result.kind === 'failed' && result.isPassing ? OUTAGE_WAITS_MS[passes] : undefined
    if (outageMs !== undefined) {
      await rest(control, outageMs)
      passes += 1
    } else if (result.kind === 'failed' && result.reason === 'repeat_not_allowed' && asksToRepeat(control)) {
      await askToRepeat(control, request, { round: repeats, detail: result.detail })
      repeats += 1
    } else {
      await followUp(control, asked, result)
    }
    control.throwIfStopped()
  }
  throw new CallFailed(request.path, 'put_off', `the call was put off ${MAX_ROUNDS} times`)
}

/** Returns when the call, or the rest of a batch of calls, may ask again, or throws. */
export function followUp(
  control: RunControl,
  { path, downgraded }: Pick<ChatRequest, 'path' | 'downgraded'>,
  result: NotAnswered,
): Promise<void> {
  switch (result.kind) {
    case 'exhausted':
      return control.exhausted(result.stop, { wasDowngraded: downgraded === true })
    case 'gate':
      if (result.gate === 'frozen') return control.frozen()
      throw control.cancel('The run was told to stop.')
    case 'waiting':
      return rest(control, result.waitMs)
    case 'failed':
      throw new CallFailed(path, result.reason, result.detail)
  }
}

/** A run that may repeat nothing by itself leaves it to its owner whether a call that may have been executed is sent again. */
export function asksToRepeat({ rules }: RunControl): boolean {
  return rules?.asksToRepeat === true
}

async function askToRepeat(
  control: RunControl,
  { path }: ChatRequest,
  { round, detail }: { readonly round: number; readonly detail: string },
): Promise<void> {
  const question = `The call ${path} may have been executed and paid for already (${detail}). Send it once more?`
  const answer = await askOwner(control, `${path}/repeat/${round + 1}`, { question, choices: [REPEAT, GIVE_UP] })
  if (answer !== REPEAT) throw new CallFailed(path, 'repeat_not_allowed', detail)
}
