import { sql, type Kysely, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'

/** A place in the order of events. */
export interface EventPlace {
  readonly xid: string
  readonly seq: string
}

export interface RunEvent extends EventPlace {
  readonly kind: string
  readonly data: unknown
  readonly recordedAt: Date
}

export async function addEvent(
  trx: Transaction<Database>,
  scope: Scope,
  event: { readonly runId: string; readonly kind: string; readonly data: unknown },
): Promise<void> {
  await trx
    .insertInto('event')
    .values({ project_id: scope.projectId, run_id: event.runId, kind: event.kind, data: json(event.data) })
    .execute()
}

/**
 * What happened after a place, in order. Only events that nothing can come before any more: the order is (xid, seq), and
 * an event is left for later while a transaction with a smaller xid is still running anywhere in the cluster. (By `seq`
 * alone a reader loses what commits late.) The order names the table, because a bare `xid` would be the text of the output.
 */
export async function eventsAfter(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly runId: string; readonly after: EventPlace | undefined; readonly limit: number },
): Promise<readonly RunEvent[]> {
  const after = request.after ?? { xid: '0', seq: '0' }
  const { rows } = await sql<RunEvent>`
    select xid::text as xid, seq::text as seq, kind, data, recorded_at as "recordedAt"
    from event
    where run_id = ${request.runId} and project_id = ${scope.projectId}
      and (xid, seq) > (${after.xid}::text::xid8, ${after.seq}::text::bigint)
      and xid < pg_snapshot_xmin(pg_current_snapshot())
    order by event.xid, event.seq limit ${request.limit}`.execute(db)
  return rows
}

/** The kinds of a run's own events at a place and before it. */
export async function runKindsUpTo(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly runId: string; readonly place: EventPlace },
): Promise<readonly string[]> {
  const { rows } = await sql<{ kind: string }>`
    select distinct kind from event
    where run_id = ${request.runId} and project_id = ${scope.projectId} and kind like 'run.%'
      and (xid, seq) <= (${request.place.xid}::text::xid8, ${request.place.seq}::text::bigint)`.execute(db)
  return rows.map((row) => row.kind)
}
