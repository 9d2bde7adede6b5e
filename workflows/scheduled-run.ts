import type { Firing, ScheduleActivities, ScheduledTime } from '#contracts/scheduling.ts'
import { proxyActivities, workflowInfo } from '@temporalio/workflow'

const { fireSchedule } = proxyActivities<ScheduleActivities>({
  startToCloseTimeout: '15 seconds',
  // A time that could not be recorded for so long is given up: the next one is near, and a burst helps nobody.
  scheduleToCloseTimeout: '10 minutes',
  retry: { initialInterval: 500, backoffCoefficient: 2, maximumInterval: 10_000 },
})

/** The server sets it for what a schedule starts: the time that was meant, however late it is. */
const scheduledStart = { name: 'TemporalScheduledStartTime', type: 'DATETIME' } as const

/** What a schedule starts at each of its times: the run is made by one transaction, and lives in a workflow of its own. */
export async function scheduledRun(time: ScheduledTime): Promise<Firing> {
  const info = workflowInfo()
  const meant = info.typedSearchAttributes.get(scheduledStart) ?? info.startTime
  return fireSchedule({ ...time, scheduledFor: meant.toISOString() })
}
