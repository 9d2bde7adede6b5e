import { sql } from 'kysely'

/**
 * Whether the limit that bound the refusal `r` may have room for what was refused. What would not fit into a whole window
 * gains nothing by a new one, and a route whose circuit is open is not asked: it is looked at again when that closes.
 */
export const limitHasRoom = sql`(
  (
    r.asked <= r.cap and r.resets_at <= clock_timestamp()
    or exists (select from usage_limit l where l.id = r.limit_id and (l.retired_at is not null or l.cap > r.cap))
  )
  and not exists (
    select from route_state s
    where s.provider = r.plan->>'provider' and s.upstream_model = r.plan->>'upstreamModel'
      and s.open_until > clock_timestamp()
  )
)`

/** Whether its call has not been tried again on the route of the refusal `r` since. */
export const isLastOfItsRoute = sql`(
  not exists (
    select from attempt t
    where t.call_id = r.call_id and t.number > r.attempt and t.plan->>'route' = r.plan->>'route'
  )
  and not exists (
    select from refusal later
    where later.call_id = r.call_id and later.attempt > r.attempt and later.plan->>'route' = r.plan->>'route'
  )
)`
