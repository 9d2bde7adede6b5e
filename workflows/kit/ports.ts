import type { CallActivities, RunActivities, ToolActivities } from '#contracts/activities.ts'
import type { MapActivities } from '#contracts/map-activities.ts'
import { ActivityCancellationType, proxyActivities, type ActivityOptions } from '@temporalio/workflow'

/**
 * Activities throw a retryable failure only when the store is absent or their worker went away, so attempts are bounded
 * by time, not by a count: a database that is down for an hour must not end a run that has paid for its answers.
 */
const retry = { initialInterval: 500, backoffCoefficient: 2, maximumInterval: 10_000 } as const

const bounds = {
  retry,
  /** Longer than any outage a run should sit out; after it the reconciler closes the run. */
  scheduleToCloseTimeout: '24 hours',
  /** Stated because SDK 1.24 behaves as TRY_CANCEL without it: the run would close while its call is still paid for. */
  cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
} as const satisfies ActivityOptions

/** Dead workers are noticed after this; activities beat every two seconds. */
const heartbeatTimeout = 10_000

/** The engine stops itself well before: a timed-out activity is not stopped by Temporal, only joined by another. */
export const { chat } = proxyActivities<CallActivities>({
  ...bounds,
  heartbeatTimeout,
  startToCloseTimeout: '10 minutes',
})

/** It begins rows for five minutes, and a call may take nine. */
export const { openMap, mapRows } = proxyActivities<MapActivities>({
  ...bounds,
  heartbeatTimeout,
  startToCloseTimeout: '15 minutes',
})

export const { tool } = proxyActivities<ToolActivities>({
  ...bounds,
  heartbeatTimeout,
  startToCloseTimeout: '2 minutes',
})

/** Short transactions with a 5 s limit of their own; without heartbeats, so this is how soon a dead worker is noticed. */
export const {
  beginRun,
  pauseForMoney,
  downgradeRun,
  beginClosing,
  standing,
  askOwner,
  openChild,
  childEnd,
  budget,
  finishRun,
  endIfIdle,
} = proxyActivities<RunActivities>({
  ...bounds,
  startToCloseTimeout: '15 seconds',
})
