import { endIfIdle } from './ports.ts'
import { rest } from './rest.ts'
import type { RunControl } from './run-control.ts'

/** Looks once whether the run has been idle for so long, and waits until it may have been. */
export async function waitWhileBusy(control: RunControl, idleMs: number): Promise<void> {
  const { isOver, leftMs } = await endIfIdle({ runId: control.runId, idleMs })
  control.throwIfStopped()
  if (isOver) {
    const detail = `Nothing was asked for ${Math.round(idleMs / 1_000)} seconds.`
    throw control.end({ state: 'partial', reason: 'idle', detail })
  }
  await rest(control, leftMs)
  control.throwIfStopped()
}
