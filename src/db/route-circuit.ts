import type { Outcome } from '#domain/policy.ts'
import { sql, type Kysely, type RawBuilder } from 'kysely'
import type { RouteKey, RouteKnowledge } from './route-turn.ts'
import type { Database } from './schema.ts'

/** A failure that opens a circuit. */
export interface Failure {
  readonly outcome: Outcome
  readonly message: string | null
}

/** What all routes are known for that anything is known of. */
export async function allRoutes(
  db: Kysely<Database>,
): Promise<readonly (RouteKey & { readonly known: RouteKnowledge })[]> {
  const { rows } = await sql<RouteKey & RouteKnowledge>`
    select s.provider, s.upstream_model as "upstreamModel", ${knowledge} from route_state s`.execute(db)
  return rows.map(({ provider, upstreamModel, ...known }) => ({ provider, upstreamModel, known }))
}

/** Opens a circuit that is closed, unless it has changed since `epoch`. Each change answers what is known now, or nothing. */
export function openCircuit(
  db: Kysely<Database>,
  key: RouteKey,
  opening: { readonly epoch: number; readonly forMs: number; readonly failures: number; readonly failure: Failure },
): Promise<RouteKnowledge | undefined> {
  const { epoch, forMs, failures, failure } = opening
  return firstOf(
    db,
    sql`
    insert into route_state as s (provider, upstream_model, epoch, failures, last_outcome, last_message, last_failed_at,
        opened_at, open_until, openings)
      values (${key.provider}, ${key.upstreamModel}, 1, ${failures}, ${failure.outcome}, ${failure.message},
        clock_timestamp(), clock_timestamp(), ${later(forMs)}, 1)
      on conflict (provider, upstream_model) do update set epoch = s.epoch + 1,
        failures = greatest(s.failures, excluded.failures), last_outcome = excluded.last_outcome,
        last_message = excluded.last_message, last_failed_at = excluded.last_failed_at,
        opened_at = excluded.opened_at, open_until = excluded.open_until, openings = 1
      where s.epoch = ${epoch} and s.opened_at is null
    returning ${knowledge}`,
  )
}

/** Of many at once one wins the probe. */
export function winProbe(
  db: Kysely<Database>,
  key: RouteKey,
  probe: { readonly id: string; readonly instanceId: string },
): Promise<RouteKnowledge | undefined> {
  return firstOf(
    db,
    sql`
    update route_state s set probe_id = ${probe.id}, probe_by = ${probe.instanceId}, probe_since = clock_timestamp()
      where ${isRoute(key)} and s.open_until <= clock_timestamp() and not is_probed(s) and is_living(${probe.instanceId})
    returning ${knowledge}`,
  )
}

/** The probe has failed: the circuit stays open for longer. */
export function reopenCircuit(
  db: Kysely<Database>,
  key: RouteKey,
  reopening: { readonly probeId: string; readonly forMs: number; readonly failure: Failure },
): Promise<RouteKnowledge | undefined> {
  const { probeId, forMs, failure } = reopening
  return firstOf(
    db,
    sql`
    update route_state s set epoch = s.epoch + 1, failures = s.failures + 1, openings = s.openings + 1,
        open_until = ${later(forMs)}, last_outcome = ${failure.outcome}, last_message = ${failure.message},
        last_failed_at = clock_timestamp(), probe_id = null, probe_by = null, probe_since = null
      where ${isRoute(key)} and s.probe_id = ${probeId}
    returning ${knowledge}`,
  )
}

/** The probe was answered. */
export function closeCircuit(
  db: Kysely<Database>,
  key: RouteKey,
  probeId: string,
): Promise<RouteKnowledge | undefined> {
  return firstOf(
    db,
    sql`update route_state s set ${closed} where ${isRoute(key)} and s.probe_id = ${probeId}
    returning ${knowledge}`,
  )
}

/** The probe has said nothing of the route: the next one may be sent at once. */
export function freeProbe(db: Kysely<Database>, key: RouteKey, probeId: string): Promise<RouteKnowledge | undefined> {
  return firstOf(
    db,
    sql`
    update route_state s set probe_id = null, probe_by = null, probe_since = null
      where ${isRoute(key)} and s.probe_id = ${probeId}
    returning ${knowledge}`,
  )
}

/** The provider asked to be left alone; whoever was asked for longer stands. */
export function pauseRoute(db: Kysely<Database>, key: RouteKey, forMs: number): Promise<RouteKnowledge | undefined> {
  return firstOf(
    db,
    sql`
    insert into route_state as s (provider, upstream_model, paused_until)
      values (${key.provider}, ${key.upstreamModel}, ${later(forMs)})
      on conflict (provider, upstream_model) do update set paused_until = greatest(s.paused_until, excluded.paused_until)
    returning ${knowledge}`,
  )
}

/** Raises the holds of a route from now on; the worst that was seen stands. */
export function distrustRoute(db: Kysely<Database>, key: RouteKey, ppm: number): Promise<RouteKnowledge | undefined> {
  return firstOf(
    db,
    sql`
    insert into route_state as s (provider, upstream_model, distrust_ppm, distrusted_at)
      values (${key.provider}, ${key.upstreamModel}, ${ppm}, clock_timestamp())
      on conflict (provider, upstream_model) do update set distrust_ppm = excluded.distrust_ppm,
        distrusted_at = excluded.distrusted_at
      where s.distrust_ppm < excluded.distrust_ppm
    returning ${knowledge}`,
  )
}

/** What closes a circuit, whoever does it. */
export const closed = sql`epoch = s.epoch + 1, failures = 0, openings = 0, opened_at = null, open_until = null,
  paused_until = null, probe_id = null, probe_by = null, probe_since = null`

const knowledge = sql`s.epoch, s.failures, s.openings, ${fromNow(sql`s.open_until`)} as "openMs",
  ${fromNow(sql`s.paused_until`)} as "pausedMs", coalesce(is_probed(s), false) as "isProbed",
  s.distrust_ppm as "distrustPpm"`

function fromNow(moment: RawBuilder<unknown>) {
  return sql`(extract(epoch from ${moment} - clock_timestamp()) * 1000)::double precision`
}

function later(ms: number) {
  return sql`clock_timestamp() + ${ms}::double precision * interval '1 millisecond'`
}

function isRoute(key: RouteKey) {
  return sql`s.provider = ${key.provider} and s.upstream_model = ${key.upstreamModel}`
}

async function firstOf(db: Kysely<Database>, query: RawBuilder<unknown>): Promise<RouteKnowledge | undefined> {
  const { rows } = await sql<RouteKnowledge>`${query}`.execute(db)
  return rows[0]
}
