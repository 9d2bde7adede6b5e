import type { Database } from '#db/schema.ts'
import { markTold, untoldSchedules, type ToldSchedule } from '#db/schedule-telling.ts'
import type { FastifyBaseLogger } from 'fastify'
import type { Kysely } from 'kysely'
import type { ScheduleClock } from './temporal-schedules.ts'

const SCHEDULES_PER_ROUND = 16
const BACKOFF_BASE_MS = 500
const BACKOFF_MAX_MS = 10_000
/** Beyond this many failing ones Temporal is away. */
const MAX_WAITING = 100

/**
 * A round of telling Temporal what the rows of schedules say, and again until told. Several processes may tell at once. One
 * that Temporal refuses keeps no other from being told.
 */
export function scheduleTeller(options: {
  readonly db: Kysely<Database>
  readonly clock: ScheduleClock
  readonly log: Pick<FastifyBaseLogger, 'warn'>
  readonly monotonicMs: () => number
}): () => Promise<void> {
  const { db, clock, log, monotonicMs } = options
  const backoffs = new Map<string, { readonly tries: number; readonly dueMs: number }>()

  async function tell(schedule: ToldSchedule): Promise<void> {
    const { id } = schedule
    try {
      if (schedule.isDeleted) await clock.remove(id)
      else await clock.put(schedule)
      await markTold(db, schedule)
      backoffs.delete(id)
    } catch (error) {
      const tries = (backoffs.get(id)?.tries ?? 0) + 1
      backoffs.set(id, { tries, dueMs: monotonicMs() + Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** (tries - 1)) })
      log.warn({ err: error, scheduleId: id, tries }, 'a schedule waits for Temporal')
    }
  }

  return async () => {
    const nowMs = monotonicMs()
    const except = Array.from(backoffs).flatMap(([id, { dueMs }]) => (dueMs > nowMs ? [id] : []))
    if (except.length >= MAX_WAITING) return
    const schedules = await untoldSchedules(db, { limit: SCHEDULES_PER_ROUND, except })
    await Promise.all(schedules.map(tell))
  }
}
