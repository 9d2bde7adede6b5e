import type { Page } from '#contracts/api-page.ts'
import type { LimitMeasure, LimitPeriod, LimitScope } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import type { Caller } from './api-key.ts'
import { json } from './json.ts'
import { refusable } from './refusable.ts'
import type { Database } from './schema.ts'
import { pageBy, within, type Period } from './page.ts'

export interface NewLimit {
  readonly id: string
  readonly scope: LimitScope
  /** What it binds; of a step limit the project, key or run whose calls begin with the step. */
  readonly subjectId: string
  readonly step: string | null
  readonly measure: LimitMeasure
  /** Of money, and only of it. */
  readonly currency: string | null
  readonly period: LimitPeriod
  readonly timeZone: string
  /** Nano, tokens or calls: 0 to 10^15. */
  readonly cap: bigint
  /** Percentages of the cap that webhooks are told of; left out: none. */
  readonly thresholds?: readonly number[]
}

export interface Limit extends NewLimit {
  readonly thresholds: readonly number[]
  readonly projectId: string | null
  readonly createdAt: Date
  readonly retiredAt: Date | null
  readonly version: number
  /** Whether an operator has set it, or somebody by hand: then no project key may change it. */
  readonly isOperators: boolean
  /** The window of now, as all amounts in the unit of the measure. */
  readonly startsAt: Date
  /** Null for a life. */
  readonly endsAt: Date | null
  readonly spent: bigint
  readonly held: bigint
  /** What envelopes have to spend from without asking, spent and held included. */
  readonly leased: bigint
}

/** What a caller may see: a project's key its own project, an operator the whole organisation. */
type Sight = Pick<Caller, 'organisationId' | 'projectId'>

export type SetVerdict = 'set' | 'unknown_subject' | 'unknown_time_zone' | 'invalid_limit'

/** Sets a limit on something of the caller's; it counts from now on. */
export async function setLimit(db: Kysely<Database>, caller: Caller, limit: NewLimit): Promise<SetVerdict> {
  const body = json({
    id: limit.id,
    scope: limit.scope,
    subject_id: limit.subjectId,
    step: limit.step,
    measure: limit.measure,
    currency: limit.currency,
    period: limit.period,
    time_zone: limit.timeZone,
    cap: refusable(limit.cap),
    thresholds: limit.thresholds ?? [],
  })
  return verdictOf(
    await sql<{ verdict: SetVerdict }>`
      select set_limit(${caller.organisationId}, ${caller.projectId}, ${body}::jsonb, ${caller.keyId}) as verdict`.execute(
      db,
    ),
  )
}

/** What is left out stays as it is. */
export interface LimitChange {
  readonly limitId: string
  readonly cap?: bigint | undefined
  readonly thresholds?: readonly number[] | undefined
}

export type ChangeVerdict = 'changed' | 'unknown_limit' | 'retired' | 'invalid_cap' | 'invalid_thresholds'

/** Changes a cap, thresholds, or both at once. A lowered cap recalls all idle leases at once. */
export async function changeLimit(
  db: Kysely<Database>,
  caller: Caller,
  { limitId, cap, thresholds }: LimitChange,
): Promise<ChangeVerdict> {
  return verdictOf(
    await sql<{ verdict: ChangeVerdict }>`
      select change_limit(${caller.organisationId}, ${caller.projectId}, ${limitId},
        ${cap === undefined ? null : refusable(cap)}, ${thresholds ? [...thresholds] : null}::integer[], ${caller.keyId})
        as verdict`.execute(db),
  )
}

/** From its commit on the limit binds nothing. Retiring it again changes nothing. */
export async function retireLimit(
  db: Kysely<Database>,
  caller: Caller,
  limitId: string,
): Promise<'retired' | 'unknown_limit'> {
  return verdictOf(
    await sql<{ verdict: 'retired' | 'unknown_limit' }>`
      select retire_limit(${caller.organisationId}, ${caller.projectId}, ${limitId}, ${caller.keyId})
        as verdict`.execute(db),
  )
}

export interface LimitFilter extends Period {
  readonly scope?: LimitScope | undefined
  readonly projectId?: string | undefined
  readonly subjectId?: string | undefined
}

/** Limits that are in force; a place is an id. */
export async function listLimits(
  db: Kysely<Database>,
  sight: Sight,
  { filter, page }: { readonly filter: LimitFilter; readonly page: Page },
): Promise<readonly Limit[]> {
  const { projectId = null, subjectId = null, scope = null } = filter
  const { follows, order } = pageBy(sql`u.id`, page)
  const { rows } = await sql<Limit>`
    ${limitsSeen(sight)} and u.retired_at is null
      and (${projectId}::uuid is null or u.project_id = ${projectId})
      and (${subjectId}::uuid is null or u.subject_id = ${subjectId})
      and (${scope}::text is null or u.scope = ${scope}) and ${follows}
      and ${within(sql`u.created_at`, filter)}
    order by ${order} limit ${page.limit}`.execute(db)
  return rows
}

/** A limit, retired ones included. Undefined for a foreign id exactly as for an unknown one. */
export async function getLimit(db: Kysely<Database>, sight: Sight, limitId: string): Promise<Limit | undefined> {
  const { rows } = await sql<Limit>`${limitsSeen(sight)} and u.id = ${limitId}`.execute(db)
  return rows[0]
}

/** The beginning of a query for limits, each with its window of now: `u` is the limit. */
export function limitsSeen({ organisationId, projectId }: Sight) {
  return sql`
    select u.id, u.project_id as "projectId", u.scope, u.subject_id as "subjectId", u.step, u.measure, u.currency,
      u.period, u.time_zone as "timeZone", u.cap, u.thresholds, u.created_at as "createdAt", u.retired_at as "retiredAt", u.version,
      not exists (select from api_key k where k.id = u.set_by and k.project_id is not null) as "isOperators",
      n.starts_at as "startsAt", window_end(u.period, u.time_zone, n.starts_at) as "endsAt",
      (coalesce(w.used, 0) + s.used + f.late)::bigint as spent, s.held::bigint as held,
      (coalesce(w.used, 0) + s.leased + f.late)::bigint as leased
    from usage_limit u
    cross join lateral (select window_start(u.period, u.time_zone, clock_timestamp()) as starts_at) n
    left join limit_window w on w.limit_id = u.id and w.starts_at = n.starts_at
    cross join lateral (
      select coalesce(sum(l.used), 0) as used, coalesce(sum(l.held), 0) as held, coalesce(sum(l.leased), 0) as leased
      from lease l where l.limit_id = u.id and l.starts_at = n.starts_at
    ) s
    cross join lateral (
      select coalesce(sum(l.late), 0) as late from folded_lease l
      where l.limit_id = u.id and l.starts_at = n.starts_at and l.late <> 0
    ) f
    where u.organisation_id = ${organisationId} and (${projectId}::uuid is null or u.project_id = ${projectId})`
}

function verdictOf<Verdict>({ rows }: { readonly rows: readonly { readonly verdict: Verdict }[] }): Verdict {
  const [row] = rows
  if (!row) throw new Error('the function returned no row')
  return row.verdict
}
