import type { ChatRequest, ChatResult } from '#contracts/activities.ts'
import { sleep } from '@temporalio/workflow'
import { chat } from './ports.ts'
import type { RunControl } from './run-control.ts'
import { CallFailed } from './stop.ts'

/** Times one call may be put off (paused, frozen, told to wait). Each is some ten events of a history of 51,200. */
const MAX_ROUNDS = 1_000

export type Answered = Extract<ChatResult, { kind: 'answered' }>

/**
 * One logical call, asked again after every pause and wait. The engine goes on from its stored attempts, so nothing that
 * finished is sent again.
 */
export async function answerOf(control: RunControl, request: ChatRequest): Promise<Answered> {
  const summary = `${request.path} · ${request.model}`
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const result = await chat.executeWithOptions({ summary }, [request])
    if (result.kind === 'answered') return result
    control.throwIfStopped()
    await followUp(control, request.path, result)
    control.throwIfStopped()
  }
  throw new CallFailed(request.path, 'put_off', `the call was put off ${MAX_ROUNDS} times`)
}

/** Returns when the call may ask again, or throws. */
function followUp(control: RunControl, path: string, result: Exclude<ChatResult, Answered>): Promise<void> {
  switch (result.kind) {
    case 'exhausted':
      return control.exhausted(result.stop)
    case 'gate':
      if (result.gate === 'frozen') return control.frozen()
      throw control.cancel('The run was told to stop.')
    case 'waiting':
      return sleep(result.waitMs)
    case 'failed':
      throw new CallFailed(path, result.reason, result.detail)
  }
}
