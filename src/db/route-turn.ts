import type { Outcome } from '#domain/policy.ts'
import { sql, type Kysely } from 'kysely'
import { json } from './json.ts'
import type { Database } from './schema.ts'

/** What processes share routes by: the account at a provider knows nothing of our catalog. */
export interface RouteKey {
  readonly provider: string
  readonly upstreamModel: string
}

/** What is known of a route; times from now, in milliseconds. */
export interface RouteKnowledge {
  /** Counts the changes of its circuit. */
  readonly epoch: number
  /** In a row, over all processes. */
  readonly failures: number
  readonly openings: number
  /** Null: the circuit is closed. Not above zero: a probe may be sent. */
  readonly openMs: number | null
  /** Above zero: the provider asked to be left alone. */
  readonly pausedMs: number | null
  readonly isProbed: boolean
  readonly distrustPpm: number
}

/** What a process has seen of a route since it last told. */
export interface RouteReport {
  readonly answered: boolean
  /** Since the last answer. */
  readonly failures: number
  readonly outcome: Outcome | null
  readonly message: string | null
}

/** A process's turn at the room that a route's limits leave: see `lease_route_room`. */
export interface RoomTurn {
  readonly rpm: number | null
  readonly tpm: number | null
  readonly concurrency: number | null
  /** It does not know what became of its lease: all of it counts as used. */
  readonly abandons: boolean
  readonly spentRequests: number
  readonly spentTokens: number
  /** Used beyond what was taken. */
  readonly overTokens: number
  readonly keepRequests: number
  readonly keepTokens: number
  readonly inFlight: number
  /** At least those in flight. */
  readonly keepSlots: number
  /** What attempts did not use after all, by the second that it was counted in. */
  readonly back: readonly { readonly slot: number; readonly requests: number; readonly tokens: number }[]
  /** Tokens of each attempt that waits, first come first. */
  readonly asks: readonly number[]
  readonly aheadRequests: number
  readonly aheadTokens: number
  readonly aheadSlots: number
}

/** What a turn was answered. */
export interface RoomGrant {
  readonly granted: number
  readonly requests: number
  readonly tokens: number
  /** All that it may have in flight. */
  readonly slots: number
  /** The second that what was spent counts in; null when the lease had lapsed. */
  readonly slot: number | null
  readonly waitMs: number | null
  /** The first ask that did not fit lacks nothing but tokens. */
  readonly isTokensOnly: boolean | null
  readonly isCrowded: boolean
  readonly validMs: number
}

export interface RouteTurn extends RouteKey {
  readonly report: RouteReport | null
  readonly room: RoomTurn | null
}

export interface RouteTurnAnswer {
  readonly known: RouteKnowledge
  readonly room: RoomGrant | null
}

/** Tells and asks for several routes in one commit. The answers stand in the order of the turns. */
export async function routeTurn(
  db: Kysely<Database>,
  instanceId: string,
  turns: readonly RouteTurn[],
): Promise<readonly RouteTurnAnswer[]> {
  const items = turns.map(({ provider, upstreamModel, report, room }) => ({
    provider,
    upstream_model: upstreamModel,
    report,
    room: room && roomRow(room),
  }))
  const { rows } = await sql<RouteKnowledge & { readonly room: RoomGrant | null }>`
    select t.epoch, t.failures, t.openings, t.open_ms as "openMs", t.paused_ms as "pausedMs",
      t.probe_taken as "isProbed", t.distrust_ppm as "distrustPpm",
      case when (t.room).granted is not null then json_build_object('granted', (t.room).granted,
        'requests', (t.room).requests, 'tokens', (t.room).tokens, 'slots', (t.room).slots, 'slot', (t.room).slot,
        'waitMs', (t.room).wait_ms, 'isTokensOnly', (t.room).tokens_only, 'isCrowded', (t.room).crowded,
        'validMs', (t.room).valid_ms) end as room
    from route_turn(${instanceId}, ${json(items)}::jsonb) t order by t.item`.execute(db)
  return rows.map(({ room, ...known }) => ({ known, room }))
}

function roomRow(room: RoomTurn) {
  return {
    rpm: room.rpm,
    tpm: room.tpm,
    concurrency: room.concurrency,
    abandons: room.abandons,
    spent_requests: room.spentRequests,
    spent_tokens: room.spentTokens,
    over_tokens: room.overTokens,
    keep_requests: room.keepRequests,
    keep_tokens: room.keepTokens,
    in_flight: room.inFlight,
    keep_slots: room.keepSlots,
    back: room.back,
    asks: room.asks,
    ahead_requests: room.aheadRequests,
    ahead_tokens: room.aheadTokens,
    ahead_slots: room.aheadSlots,
  }
}
