import type { Outcome } from '#domain/policy.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import type { Caller } from './api-key.ts'
import { closed } from './route-circuit.ts'
import type { RouteKey } from './route-turn.ts'
import { newId } from './ids.ts'
import type { Database } from './schema.ts'
import { json } from './json.ts'

/** A route as people look at it: of the installation, whoever's calls have made it so. */
export interface RouteHealth extends RouteKey {
  readonly circuit: 'closed' | 'open' | 'half_open' | 'paused'
  readonly openedAt: Date | null
  readonly openUntil: Date | null
  readonly pausedUntil: Date | null
  readonly failures: number
  readonly lastOutcome: Outcome | null
  readonly lastMessage: string | null
  readonly lastFailedAt: Date | null
  readonly distrustPpm: number
  readonly distrustedAt: Date | null
  /** In the last window, and what is leased to processes besides. */
  readonly requestsUsed: number
  readonly requestsLeased: number
  readonly tokensUsed: number
  readonly tokensLeased: number
  /** Concurrent slots that living processes have. */
  readonly slots: number
  readonly reset: RouteReset | null
}

/** The last time that a person closed its circuit, or trusted it again. */
export interface RouteReset {
  readonly what: 'circuit' | 'distrust'
  readonly at: string
  readonly organisationId: string
  readonly keyId: string
}

/** In the order of the keys; what nothing is known of is well. */
export async function healthOf(db: Kysely<Database>, keys: readonly RouteKey[]): Promise<readonly RouteHealth[]> {
  const { rows } = await sql<RouteHealth>`
    select k.provider, k."upstreamModel",
      case when s.opened_at is not null and s.open_until > clock_timestamp() then 'open'
        when s.opened_at is not null then 'half_open'
        when s.paused_until > clock_timestamp() then 'paused' else 'closed' end as circuit,
      s.opened_at as "openedAt", s.open_until as "openUntil", s.paused_until as "pausedUntil",
      coalesce(s.failures, 0) as failures, s.last_outcome as "lastOutcome", s.last_message as "lastMessage",
      s.last_failed_at as "lastFailedAt", coalesce(s.distrust_ppm, 0) as "distrustPpm",
      s.distrusted_at as "distrustedAt", u.requests as "requestsUsed", l.requests as "requestsLeased",
      u.tokens as "tokensUsed", l.tokens as "tokensLeased", l.slots, r.reset
    from rows from (jsonb_to_recordset(${json(keys)}::jsonb) as (provider text, "upstreamModel" text))
      with ordinality as k(provider, "upstreamModel", place)
    left join route_state s on s.provider = k.provider and s.upstream_model = k."upstreamModel"
    cross join lateral (
      select coalesce(sum(u.requests), 0)::double precision as requests,
        coalesce(sum(u.tokens), 0)::double precision as tokens
      from route_use u where u.provider = k.provider and u.upstream_model = k."upstreamModel"
        and u.slot + route_window_seconds() > extract(epoch from clock_timestamp())
    ) u
    cross join lateral (
      select coalesce(sum(l.requests), 0)::double precision as requests,
        coalesce(sum(l.tokens), 0)::double precision as tokens,
        coalesce(sum(l.slots) filter (where is_living(l.instance_id)), 0)::double precision as slots
      from route_lease l where l.provider = k.provider and l.upstream_model = k."upstreamModel"
    ) l
    left join lateral (
      select jsonb_build_object('what', r.what, 'at', r.reset_at, 'organisationId', r.organisation_id,
        'keyId', r.api_key_id) as reset
      from route_reset r where r.provider = k.provider and r.upstream_model = k."upstreamModel"
      order by r.reset_at desc limit 1
    ) r on true
    order by k.place`.execute(db)
  return rows
}

/**
 * Closes the circuit of a route, or trusts it again, and writes down who did it. Processes that make calls know it within
 * a second. False when nothing was to be reset.
 */
export async function resetRoute(
  trx: Transaction<Database>,
  caller: Caller,
  reset: RouteKey & { readonly id: string; readonly what: 'circuit' | 'distrust' },
): Promise<boolean> {
  const { id, provider, upstreamModel, what } = reset
  const change = what === 'circuit' ? closed : sql`distrust_ppm = 0, distrusted_at = null`
  const isSet =
    what === 'circuit'
      ? sql`(s.opened_at is not null or s.paused_until is not null or s.failures > 0)`
      : sql`s.distrust_ppm > 0`
  const { rows } = await sql`
    with before as (
      select to_jsonb(s) as state from route_state s
      where s.provider = ${provider} and s.upstream_model = ${upstreamModel} for no key update
    ), changed as (
      update route_state s set ${change}
      where s.provider = ${provider} and s.upstream_model = ${upstreamModel} and ${isSet} returning 1
    )
    insert into route_reset (id, provider, upstream_model, what, organisation_id, api_key_id, before)
    select ${id}, ${provider}, ${upstreamModel}, ${what}, ${caller.organisationId}, ${caller.keyId}, b.state
    from before b, changed
    returning 1`.execute(trx)
  return rows.length > 0
}

/** Closes the circuits of all routes to a provider, and writes down who did it. */
export async function resetCircuitsOf(
  trx: Transaction<Database>,
  caller: Caller,
  { provider, nowMs }: { readonly provider: string; readonly nowMs: number },
): Promise<void> {
  const routes = await trx
    .selectFrom('route_state')
    .select('upstream_model as upstreamModel')
    .where('provider', '=', provider)
    .where('opened_at', 'is not', null)
    // One order for all who lock several.
    .orderBy('upstream_model')
    .execute()
  for (const { upstreamModel } of routes) {
    await resetRoute(trx, caller, { id: newId(nowMs), provider, upstreamModel, what: 'circuit' })
  }
}
