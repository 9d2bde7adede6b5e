import { CancellationScope, condition, patched, sleep } from '@temporalio/workflow'
import type { RunControl } from './run-control.ts'

/** Waits so long, or until the run is to end: what waits is no request, so an end does not wait for it. */
export async function rest(control: RunControl, waitMs: number): Promise<void> {
  if (patched('rest-until-the-end')) await condition(() => control.isStopped, waitMs)
  else await sleep(waitMs)
}

export interface Timer {
  readonly isOver: boolean
  cancel(): void
}

export function startTimer(limitMs: number): Timer {
  const timer = { isOver: false, cancel: () => scope.cancel() }
  const scope = new CancellationScope({ cancellable: true })
  const wait = scope.run(async () => {
    await sleep(limitMs)
    timer.isOver = true
  })
  wait.catch(() => {})
  return timer
}
