import { MAX_VALUE_BYTES, type RunEnd } from '#contracts/activities.ts'
import { invariant } from '#domain/invariant.ts'
import { utf8Length } from '#domain/token-bound.ts'
import { sleep } from '@temporalio/workflow'
import { finishRun } from './ports.ts'
import { messageOf, type RunControl } from './run-control.ts'
import { CallFailed, Stop, ToolFailed } from './stop.ts'

const FIRST_WAIT_MS = 250
const LAST_WAIT_MS = 5_000
/** Over an hour. An attempt is resolved after a minute at the latest, so beyond this something is broken. */
const MAX_ROUNDS = 1_000

/** How the agent's own code ended. */
export type AgentResult =
  | { readonly ok: true; readonly output: unknown }
  | { readonly ok: false; readonly error: unknown }

/** Ends the run whatever happened: decides how, waits for what is in flight, and repeats until the books are closed. */
export async function finish(control: RunControl, runId: string, result: AgentResult): Promise<RunEnd> {
  const { end } = control.end(endOf(result))
  if (end.state === 'failed' && control.isBusy) await control.close()
  await control.settled()
  const output = (isDelivered(result) ? result.output : control.draft) ?? null
  for (let round = 0, waitMs = FIRST_WAIT_MS; ; round += 1) {
    invariant(round < MAX_ROUNDS, 'an attempt stays in flight, so the run cannot be closed')
    const { finished } = await finishRun({ runId, end, output })
    if (finished) return end
    await sleep(waitMs)
    waitMs = Math.min(2 * waitMs, LAST_WAIT_MS)
  }
}

/** Whether a value may stand in a workflow's history. */
export function fitsHistory(value: unknown): boolean {
  return utf8Length(JSON.stringify(value) ?? '') <= MAX_VALUE_BYTES
}

function isDelivered(result: AgentResult): result is { readonly ok: true; readonly output: unknown } {
  return result.ok && fitsHistory(result.output)
}

function endOf(result: AgentResult): RunEnd {
  if (!result.ok) return failureOf(result.error)
  if (isDelivered(result)) return { state: 'completed', reason: 'finished', detail: 'The agent finished.' }
  const detail = `The agent's output is larger than ${MAX_VALUE_BYTES} bytes.`
  return { state: 'failed', reason: 'output_too_large', detail }
}

function failureOf(error: unknown): RunEnd {
  if (error instanceof Stop) return error.end
  const detail = messageOf(error)
  if (error instanceof CallFailed) return { state: 'failed', reason: 'call_failed', detail }
  if (error instanceof ToolFailed) return { state: 'failed', reason: 'tool_failed', detail }
  return { state: 'failed', reason: 'agent_error', detail }
}
