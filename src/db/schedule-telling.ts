import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'

/** A schedule as Temporal is told of it. */
export interface ToldSchedule {
  readonly id: string
  readonly name: string
  readonly everySeconds: number | null
  readonly cron: string | null
  readonly timeZone: string
  readonly isPaused: boolean
  readonly isDeleted: boolean
  /** Counts its changes. */
  readonly version: number
}

/** Schedules of any tenant whose newest version Temporal has not heard of, longest waiting first. */
export async function untoldSchedules(
  db: Kysely<Database>,
  options: { readonly limit: number; readonly except: readonly string[] },
): Promise<readonly ToldSchedule[]> {
  const { rows } = await sql<ToldSchedule>`
    select id, name, every_seconds as "everySeconds", cron, time_zone as "timeZone", state = 'paused' as "isPaused",
      state = 'deleted' as "isDeleted", version
    from schedule where told_version < version and not id = any(${[...options.except]}::uuid[])
    order by changed_at limit ${options.limit}`.execute(db)
  return rows
}

/**
 * Temporal was told this version. If it was changed meanwhile, what was told may be older than what another process told
 * it: then nothing counts as told, and the newest version is told again.
 */
export async function markTold(
  db: Kysely<Database>,
  { id, version }: Pick<ToldSchedule, 'id' | 'version'>,
): Promise<void> {
  await sql`
    update schedule set told_version = case when version = ${version} then version else 0 end
    where id = ${id}`.execute(db)
}
