import { Draining, GateClosed } from '#calls/gate-watch.ts'
import { CancelledFailure, Context } from '@temporalio/activity'

/** A fifth of the heartbeat timeout that the kit asks for: one late beat is no dead worker. */
const BEAT_MS = 2_000

/**
 * Beats by a timer while `work` runs, with what `details` says by then, and passes on what Temporal says as an abort: a cancel by a user stops the call
 * like a closing gate does; a worker that shuts down stops it after the drain, to go on elsewhere. Everything else
 * Temporal may say (a timeout, a lost activity, an operator's reset) leaves the work alone: it is paid for, and whoever
 * asks for it next joins it.
 */
export async function withHeartbeat<Result>(
  details: () => unknown,
  work: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const context = Context.current()
  const controller = new AbortController()
  const onCancel = (): void => {
    const reason = reasonOf(context.cancellationSignal.reason)
    if (reason) controller.abort(reason)
  }
  context.cancellationSignal.addEventListener('abort', onCancel)
  const timer = setInterval(() => context.heartbeat(details()), BEAT_MS)
  try {
    context.heartbeat(details())
    if (context.cancellationSignal.aborted) onCancel()
    return await work(controller.signal)
  } finally {
    clearInterval(timer)
    context.cancellationSignal.removeEventListener('abort', onCancel)
  }
}

function reasonOf(cause: unknown): Error | undefined {
  const message = cause instanceof CancelledFailure ? cause.message : ''
  if (message === 'CANCELLED') return new GateClosed()
  return message === 'WORKER_SHUTDOWN' ? new Draining() : undefined
}
