import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'

/** How long what is no part of the ledger is kept, in days; zero is for ever. */
export interface Retention {
  readonly refusalsDays: number
  readonly idempotencyDays: number
  readonly instancesDays: number
}

/** Most rows of one turn: well within the five seconds that a transaction has. */
const MOST = 1_000
/** That a threshold was told is looked at until its window has been over for an hour. */
const TOLD_DAYS = 1
/** What was deposited alone is added up for 24 hours: more than those, whatever a day is in the database's time zone. */
const ADDED_UP_DAYS = 2

export interface Purged {
  readonly refusals: number
  /** What was told of calls that belong to no run: as long as refusals. */
  readonly keyEvents: number
  readonly idempotency: number
  readonly instances: number
  /** Which thresholds of windows that are over webhooks were told of. */
  readonly limitThresholds: number
  /** What operators deposited alone and is added up no more: the deposits themselves stay. */
  readonly loneDeposits: number
}

/** Deletes what is older than it is kept, a bounded part of it. Returns how much; many at once do no harm. */
export async function purgeExpired(db: Kysely<Database>, retention: Retention): Promise<Purged> {
  const { refusalsDays, idempotencyDays, instancesDays } = retention
  return {
    refusals: await purge(db, 'purge_refusals', refusalsDays),
    keyEvents: await purge(db, 'purge_key_events', refusalsDays),
    idempotency: await purge(db, 'purge_idempotency', idempotencyDays),
    instances: await purge(db, 'purge_instances', instancesDays),
    limitThresholds: await purge(db, 'purge_limit_thresholds', TOLD_DAYS),
    loneDeposits: await purge(db, 'purge_lone_deposits', ADDED_UP_DAYS),
  }
}

async function purge(
  db: Kysely<Database>,
  name: `purge_${'refusals' | 'key_events' | 'idempotency' | 'instances' | 'limit_thresholds' | 'lone_deposits'}`,
  days: number,
): Promise<number> {
  if (days === 0) return 0
  const { rows } = await sql<{ purged: number }>`
    select ${sql.id(name)}(make_interval(days => ${days}), ${MOST}) as purged`.execute(db)
  return rows[0]?.purged ?? 0
}
