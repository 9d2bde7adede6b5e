import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import { freeFor } from './free-money.ts'
import type { Database } from './schema.ts'

/** What a call could have now: money in nano, and tokens, null where no limit counts them. */
export interface Room {
  readonly money: bigint
  readonly tokens: bigint | null
}

/**
 * What a call could have of its pocket, and of the limits that bind it as their windows stand. A look, not a promise: only a
 * hold is one.
 */
export async function roomFor(
  db: Kysely<Database>,
  scope: Scope,
  call: { readonly accountId: string; readonly path: string },
): Promise<Room> {
  const [free, limits] = await Promise.all([freeFor(db, scope, call.accountId), limitRooms(db, scope, call)])
  const roomOf = (name: LimitRoom['measure']) => limits.find(({ measure }) => measure === name)?.room ?? null
  const money = roomOf('money')
  return { money: money !== null && money < free ? money : free, tokens: roomOf('tokens') }
}

interface LimitRoom {
  readonly measure: 'money' | 'tokens'
  /** Of the tightest limit: what is neither used nor held; idle leases are recalled before anything is refused. */
  readonly room: bigint
}

async function limitRooms(
  db: Kysely<Database>,
  scope: Scope,
  { accountId, path }: { readonly accountId: string; readonly path: string },
): Promise<readonly LimitRoom[]> {
  const { rows } = await sql<LimitRoom>`
    select u.measure, greatest(0, min(u.cap - coalesce(w.used, 0) - f.late - s.taken))::bigint as room
    from account a
    join envelope e on e.id = a.envelope_id
    join usage_limit u on u.subject_id = any(e.subjects) and u.retired_at is null
      and u.organisation_id = e.subjects[1] and (u.project_id is null or u.project_id = e.project_id)
      and (u.currency is null or u.currency = a.currency)
      and (u.step is null or ${path}::text = u.step or starts_with(${path}::text, u.step || '/'))
    cross join lateral (select window_start(u.period, u.time_zone, clock_timestamp()) as starts_at) n
    left join limit_window w on w.limit_id = u.id and w.starts_at = n.starts_at
    cross join lateral (
      select coalesce(sum(l.used + l.held), 0) as taken from lease l where l.limit_id = u.id and l.starts_at = n.starts_at
    ) s
    cross join lateral (
      select coalesce(sum(l.late), 0) as late from folded_lease l
      where l.limit_id = u.id and l.starts_at = n.starts_at and l.late <> 0
    ) f
    where a.id = ${accountId} and a.project_id = ${scope.projectId} and u.measure in ('money', 'tokens')
    group by u.measure`.execute(db)
  return rows
}
