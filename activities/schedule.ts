import type { ScheduleActivities } from '#contracts/scheduling.ts'
import { fireSchedule } from '#db/schedule-firing.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'
import { asActivity } from './failure.ts'

export function createScheduleActivities(deps: {
  readonly db: Kysely<Database>
  readonly nowMs: () => number
}): ScheduleActivities {
  return {
    fireSchedule: ({ scheduledFor, ...time }) =>
      asActivity(() => fireSchedule(deps.db, { ...time, scheduledFor: new Date(scheduledFor), nowMs: deps.nowMs() })),
  }
}
