import type { LikelyRepeats } from '#contracts/report.ts'
import { spendOf, sum } from '#domain/journal.ts'
import { toAmount } from '#domain/money.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { RunEntry } from './journal.ts'
import { firstOf } from './report-totals.ts'
import type { Database } from './schema.ts'

/** Whose calls: those of a key's own envelope, or of an external run. */
type CallsOf = { readonly keyId: string } | { readonly runId: string }

/** How soon after the end of a call a request is likely the same one, sent again. */
const REPEAT_INTERVAL = '1 minute'
/** How long before such a request its call was opened, at most: the gateway gives up before, and what is lost is resolved. */
const LONGEST_CALL = '12 minutes'

/**
 * For calls opened within a time, the one before each that asked the same and had ended, or begun, a minute before at most,
 * where neither had an Idempotency-Key: with one, a repeated request is no call of its own.
 */
export async function likelyPredecessors(
  db: Kysely<Database>,
  { projectId }: Scope,
  { of, from, to }: { readonly of: CallsOf; readonly from: string; readonly to: string },
): Promise<ReadonlyMap<string, string>> {
  const theirs =
    'keyId' in of
      ? sql`c.api_key_id = ${of.keyId} and c.run_id is null and c.path not like 'v1/%/%'`
      : // A client's key is no UUID, as a rule; where it is one, the same request under another is a repeat as well.
        sql`c.run_id = ${of.runId} and c.path ~ '^v1/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'`
  const { rows } = await sql<{ id: string; repeats: string }>`
    with near as materialized (
      select c.id, c.digest, c.created_at from call c
      where c.project_id = ${projectId} and ${theirs}
        and c.created_at between ${from}::timestamptz - ${LONGEST_CALL}::interval and ${to}::timestamptz
    )
    select n.id, n.repeats from (
      select c.id, c.created_at, lag(c.id) over same as repeats, lag(c.created_at) over same as begun_at
      from near c where c.digest in (select o.digest from near o group by o.digest having count(*) > 1)
      window same as (partition by c.digest order by c.created_at, c.id)
    ) n where n.created_at < ${REPEAT_INTERVAL}::interval
      + greatest(n.begun_at, (select max(a.resolved_at) from attempt a where a.call_id = n.repeats))`.execute(db)
  return new Map(rows.map(({ id, repeats }) => [id, repeats]))
}

/** Calls that repeat others, by the earliest that is known. @param calls the oldest first */
export function repeatGroups(
  calls: readonly string[],
  {
    predecessors,
    entries,
  }: {
    readonly predecessors: ReadonlyMap<string, string>
    readonly entries: ReadonlyMap<string | null, readonly RunEntry[]>
  },
): LikelyRepeats {
  const repeating = calls.filter((id) => predecessors.has(id))
  const groups = Map.groupBy(repeating, (id) => earliest(id, predecessors))
  return Array.from(groups, ([first, repeats]) => ({
    first,
    repeats,
    charged: chargedIn(repeats.flatMap((id) => entries.get(id) ?? [])),
  }))
}

function earliest(id: string, predecessors: ReadonlyMap<string, string>): string {
  let first = id
  for (let before = predecessors.get(first); before !== undefined; before = predecessors.get(first)) first = before
  return first
}

/** What entries of the journal cost, by the money they were paid with. */
export function chargedIn(entries: readonly RunEntry[]): LikelyRepeats[number]['charged'] {
  return [...Map.groupBy(entries, ({ money }) => money).values()].map((group) => {
    const { balanceClass, currency } = firstOf(group)
    return { balanceClass, charged: toAmount(sum(group.map(spendOf)), currency) }
  })
}
