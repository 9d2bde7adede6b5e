import type { MissedTimes } from '#contracts/api-schedule.ts'
import { SCHEDULED_RUN, type ScheduledTime } from '#contracts/scheduling.ts'
import type { ToldSchedule } from '#db/schedule-telling.ts'
import { ScheduleAlreadyRunning, ScheduleNotFoundError, ScheduleOverlapPolicy, type Client } from '@temporalio/client'
import { inTime } from './temporal-call.ts'

/** How Temporal hears of schedules. Each is safe to repeat; each fails when Temporal cannot be reached in time. */
export interface ScheduleClock {
  /** Makes it, or changes it to what it is now. */
  put(schedule: ToldSchedule): Promise<void>
  /** One that is gone already needs no removing. */
  remove(scheduleId: string): Promise<void>
  /** Times that it has not made anything of; undefined when it does not know the schedule, or does not answer in time. */
  missedOf(scheduleId: string): Promise<MissedTimes | undefined>
}

/** Temporal's own least. */
const MIN_CATCH_UP_MS = 60_000
/** Whoever was away for longer wants the next time, not the last one. */
const MAX_CATCH_UP_MS = 24 * 60 * 60_000

export function temporalSchedules(options: { readonly client: Client; readonly taskQueue: string }): ScheduleClock {
  const { client, taskQueue } = options
  const ask = <Answer>(work: () => Promise<Answer>) => inTime(client.connection, work)

  async function tell(schedule: ToldSchedule, catchUpMs: number): Promise<void> {
    const told = { scheduleId: schedule.id, ...definitionOf(schedule, { taskQueue, catchUpMs }) }
    try {
      await ask(() => client.schedule.create(told))
    } catch (error) {
      if (!(error instanceof ScheduleAlreadyRunning)) throw error
      await ask(() => client.schedule.getHandle(schedule.id).update(() => told))
    }
  }

  return {
    async put(schedule) {
      const { everySeconds } = schedule
      await tell(schedule, clamp(everySeconds === null ? MIN_CATCH_UP_MS : everySeconds * 1_000))
      if (everySeconds !== null) return
      // How far apart the times of a cron expression are is known to Temporal only.
      const { info } = await ask(() => client.schedule.getHandle(schedule.id).describe())
      const intervalMs = leastInterval(info.nextActionTimes)
      if (intervalMs !== undefined && intervalMs > MIN_CATCH_UP_MS) await tell(schedule, clamp(intervalMs))
    },
    async remove(scheduleId) {
      try {
        await ask(() => client.schedule.getHandle(scheduleId).delete())
      } catch (error) {
        if (!(error instanceof ScheduleNotFoundError)) throw error
      }
    },
    async missedOf(scheduleId) {
      try {
        const { info } = await ask(() => client.schedule.getHandle(scheduleId).describe())
        return { late: info.numActionsMissedCatchupWindow, overlapping: info.numActionsSkippedOverlap }
      } catch {
        // Whoever asks is told that it is not known: the schedule itself is a row.
        return undefined
      }
    },
  }
}

/**
 * Missed times are caught up within one interval, so that an outage fires no burst: of Temporal by its window, and of all
 * workers by that of the firing. Overlap is decided by the run, which outlives the workflow that starts it; here it means
 * only that no two firings run at once.
 */
function definitionOf(
  { id, name, everySeconds, cron, timeZone, isPaused }: ToldSchedule,
  { taskQueue, catchUpMs }: { readonly taskQueue: string; readonly catchUpMs: number },
) {
  return {
    spec: {
      timezone: timeZone,
      ...(everySeconds !== null && { intervals: [{ every: everySeconds * 1_000 }] }),
      ...(cron !== null && { cronExpressions: [cron] }),
    },
    action: {
      type: 'startWorkflow' as const,
      workflowType: SCHEDULED_RUN,
      workflowId: `schedule-${id}`,
      taskQueue,
      args: [{ scheduleId: id, lateAfterMs: catchUpMs } satisfies ScheduledTime],
      staticSummary: `schedule ${name}`,
    },
    policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: catchUpMs },
    state: { paused: isPaused, note: isPaused ? 'paused in Purser' : '' },
  }
}

function leastInterval(times: readonly Date[]): number | undefined {
  const gaps = times.slice(1).map((time, index) => time.getTime() - (times[index]?.getTime() ?? 0))
  return gaps.length > 0 ? Math.min(...gaps) : undefined
}

function clamp(ms: number): number {
  return Math.min(MAX_CATCH_UP_MS, Math.max(MIN_CATCH_UP_MS, ms))
}
