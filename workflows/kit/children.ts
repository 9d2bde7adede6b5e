import type { ChildEnd, ChildRequest } from '#contracts/activities.ts'
import { WAKE_SIGNAL } from '#contracts/activities.ts'
import {
  ChildWorkflowCancellationType,
  isCancellation,
  ParentClosePolicy,
  patched,
  sleep,
  startChild,
} from '@temporalio/workflow'
import { attributesOfChild } from './details.ts'
import { childEnd, openChild } from './ports.ts'
import type { RunControl } from './run-control.ts'
import { ChildFailed } from './stop.ts'

/** A child that was started by an earlier life of this workflow is looked at so often. */
const LOOK_MS = 2_000
const ALREADY_STARTED = 'WorkflowExecutionAlreadyStartedError'

/** What a child run delivered. */
export interface ChildResult {
  readonly runId: string
  readonly state: 'completed' | 'partial'
  readonly output: unknown
}

/**
 * Runs another agent as a child, in an envelope carved from this run's remainder before it starts, and waits for its end.
 *
 * @throws ChildFailed when it is not opened, or ends without a result
 */
export async function runChild(control: RunControl, request: ChildRequest): Promise<ChildResult> {
  const { path, agent } = request
  const opened = await openChild(request)
  if (opened.kind === 'refused') throw new ChildFailed(path, opened.reason, opened.detail)
  const end = await childLife(control, { runId: opened.runId, agent, model: request.model })
  if (end.state === 'completed' || end.state === 'partial') {
    return { runId: opened.runId, state: end.state, output: end.output }
  }
  // The child of a run that was told to stop may hear of it first.
  if (end.state === 'cancelled' && patched('children-tell-of-stops')) await control.frozen()
  throw new ChildFailed(path, end.reason, end.detail)
}

async function childLife(
  control: RunControl,
  started: { readonly runId: string; readonly agent: string; readonly model: string | undefined },
): Promise<ChildEnd> {
  const { runId, agent } = started
  try {
    const child = await startChild(agent, {
      workflowId: runId,
      args: [{ runId }],
      staticSummary: `child of ${control.runId}`,
      typedSearchAttributes: attributesOfChild(started),
      parentClosePolicy: ParentClosePolicy.REQUEST_CANCEL,
      cancellationType: ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
      workflowIdReusePolicy: 'REJECT_DUPLICATE',
    })
    const release = control.adopt({ wake: () => child.signal(WAKE_SIGNAL).catch(() => {}) })
    try {
      await child.result()
    } catch (error) {
      // It is gone without its own end (terminated, say): whoever looks at its row hears how it ended.
      if (isCancellation(error)) throw error
    } finally {
      release()
    }
  } catch (error) {
    if (!(error instanceof Error && error.name === ALREADY_STARTED)) throw error
  }
  for (;;) {
    const end = await childEnd({ runId })
    if (end) return end
    await sleep(LOOK_MS)
  }
}
