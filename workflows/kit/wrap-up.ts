import type { RunEnd } from '#contracts/activities.ts'
import { beginClosing } from './ports.ts'
import type { RunControl } from './run-control.ts'

/** Ends after which a run delivers from its reserve: it was stopped, and nothing of it is broken. */
const STOPPED: ReadonlySet<RunEnd['reason']> = new Set(['money_exhausted', 'pause_expired', 'deadline', 'cancelled'])

/** Whether a run that ends so may still deliver: the row decides, and opens the reserve in the same commit. */
export async function mayWrapUp(control: RunControl, end: RunEnd): Promise<boolean> {
  if (control.rules?.hasWrapUp !== true || !STOPPED.has(end.reason)) return false
  const { reason, detail, stop } = end
  const request = { runId: control.runId, reason, detail, ...(stop && { stop }), from: 'any', wrapUp: true } as const
  return (await beginClosing(request)) === 'wrapping_up'
}
