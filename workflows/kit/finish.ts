import { MAX_VALUE_BYTES, type RunEnd } from '#contracts/activities.ts'
import { invariant } from '#domain/invariant.ts'
import { utf8Length } from '#domain/token-bound.ts'
import { sleep } from '@temporalio/workflow'
import { showState } from './details.ts'
import { finishRun } from './ports.ts'
import type { RunControl } from './run-control.ts'
import { CallFailed, ChildFailed, Stop, ToolFailed } from './stop.ts'
import { messageOf } from './words.ts'
import { mayWrapUp } from './wrap-up.ts'

const FIRST_WAIT_MS = 250
const LAST_WAIT_MS = 5_000
/** Over an hour. An attempt is resolved after a minute at the latest, so beyond this something is broken. */
const MAX_ROUNDS = 1_000

const TOO_LARGE = `The agent's output is larger than ${MAX_VALUE_BYTES} bytes.`

/** How the agent's own code ended. */
export type AgentResult =
  | { readonly ok: true; readonly output: unknown }
  | { readonly ok: false; readonly error: unknown }

/** The work of a run, and what delivers when it is stopped. */
interface Phases {
  readonly control: RunControl
  readonly delivery: RunControl
}

interface Delivered {
  readonly end: RunEnd
  readonly output: unknown
  /** Why the draft is delivered in place of what the wrap-up was to make of it. */
  readonly wrapUpFailure?: string
}

/**
 * Ends the run whatever happened: decides how, waits for what is in flight, delivers, and repeats until the books are
 * closed.
 */
export async function finish(
  { control, delivery }: Phases,
  result: AgentResult,
  wrapUp: ((draft: unknown) => Promise<unknown>) | undefined,
): Promise<RunEnd> {
  const decided = control.end(endOf(result)).end
  if (decided.state === 'failed' && control.inFlight.isBusy) await control.close()
  await control.inFlight.settled()
  const draft = (isDelivered(result) ? result.output : control.draft) ?? null
  const delivered = await deliver({ control, delivery }, { end: decided, output: draft }, wrapUp)
  const { end, wrapUpFailure } = delivered
  const { runId } = control
  for (let round = 0, waitMs = FIRST_WAIT_MS; ; round += 1) {
    invariant(round < MAX_ROUNDS, 'an attempt stays in flight, so the run cannot be closed')
    const { finished, state = end.state } = await finishRun({ runId, ...delivered })
    if (finished) {
      showState(state)
      return wrapUpFailure === undefined
        ? { ...end, state }
        : { ...end, state, detail: `${end.detail} It could not wrap up: ${wrapUpFailure}` }
    }
    await sleep(waitMs)
    waitMs = Math.min(2 * waitMs, LAST_WAIT_MS)
  }
}

/** What a stopped run makes of its draft, from its reserve. Whatever goes wrong then, the draft is there. */
async function deliver(
  { control, delivery }: Phases,
  draft: Delivered,
  wrapUp: ((draft: unknown) => Promise<unknown>) | undefined,
): Promise<Delivered> {
  if (!wrapUp || !(await mayWrapUp(control, draft.end))) return draft
  try {
    const output = (await wrapUp(draft.output)) ?? null
    await delivery.inFlight.settled()
    if (fitsHistory(output)) return { end: { ...draft.end, state: 'partial' }, output }
    return { ...draft, wrapUpFailure: TOO_LARGE }
  } catch (error) {
    delivery.end(draft.end)
    await delivery.inFlight.settled()
    return { ...draft, wrapUpFailure: reasonOf(error) }
  }
}

/** In words, whatever an agent may throw. */
function reasonOf(error: unknown): string {
  if (error instanceof Stop) return error.end.detail
  return error instanceof Error ? `${error.name}: ${messageOf(error)}` : messageOf(error)
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
  return { state: 'failed', reason: 'output_too_large', detail: TOO_LARGE }
}

function failureOf(error: unknown): RunEnd {
  if (error instanceof Stop) return error.end
  const detail = messageOf(error)
  if (error instanceof CallFailed) return { state: 'failed', reason: 'call_failed', detail }
  if (error instanceof ToolFailed) return { state: 'failed', reason: 'tool_failed', detail }
  if (error instanceof ChildFailed) return { state: 'failed', reason: 'child_failed', detail }
  return { state: 'failed', reason: 'agent_error', detail }
}
