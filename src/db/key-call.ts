import type { Page } from '#contracts/api-page.ts'
import type { KeyCallList, KeyCallView } from '#contracts/api-call.ts'
import { spendOf, sum } from '#domain/journal.ts'
import { toAmount } from '#domain/money.ts'
import { sql, type Kysely } from 'kysely'
import { attemptMoney } from './attempt-money.ts'
import { readCallJournal } from './call-journal.ts'
import { readCalls } from './call-read.ts'
import type { Scope } from './database.ts'
import { callsBy } from './page.ts'
import { instantText } from './instant.ts'
import type { RunEntry } from './journal.ts'
import { firstOf } from './report-totals.ts'
import type { Database } from './schema.ts'

/** When a call was opened, to the microsecond, and its id: `<at>_<id>` is its place. */
interface CallPlace {
  readonly at: string
  readonly id: string
}

export interface KeyCallFilter {
  readonly keyId: string
  readonly state?: 'open' | 'answered' | undefined
  readonly model?: string | undefined
  readonly from?: string | undefined
  readonly to?: string | undefined
}

/** How soon a request that is sent again is likely the same one. */
const REPEAT_INTERVAL = '1 minute'

/** The calls of a key that belong to no run, in time, each with its attempts and what it likely repeats. */
export async function listKeyCalls(
  db: Kysely<Database>,
  scope: Scope,
  { filter, page: asked }: { readonly filter: KeyCallFilter; readonly page: Page },
): Promise<Omit<KeyCallList, 'nextCursor'>> {
  const page = await pageOf(db, scope, { filter, page: asked })
  const callIds = page.map(({ id }) => id)
  const journal = await readCallJournal(db, scope, callIds)
  const reports = await readCalls(db, scope, { of: { callIds }, attempts: attemptMoney(journal) })
  const predecessors = await predecessorsOf(db, filter.keyId, page)
  const byId = new Map(reports.map((report) => [report.id, report]))
  const entries = Map.groupBy(journal, ({ callId }) => callId)
  const calls = page.flatMap(({ id, at, path }): KeyCallView[] => {
    const report = byId.get(id)
    if (!report) return []
    const repeats = predecessors.get(id) ?? null
    return [
      { ...report, at, idempotencyKey: idempotencyKeyIn(path), repeats, charged: chargedIn(entries.get(id) ?? []) },
    ]
  })
  const oldestFirst = asked.order === 'asc' ? calls : calls.toReversed()
  return { calls, likelyRepeats: groupsOf(oldestFirst, { predecessors, entries }) }
}

interface PageRow extends CallPlace {
  readonly path: string
}

async function pageOf(
  db: Kysely<Database>,
  scope: Scope,
  { filter, page }: { readonly filter: KeyCallFilter; readonly page: Page },
): Promise<readonly PageRow[]> {
  const { keyId, state = null, model = null, from = null, to = null } = filter
  const { follows, order } = callsBy(page)
  const { rows } = await sql<PageRow>`
    select c.id, c.path, ${instantText(sql`c.created_at`)} as at from call c
    where c.api_key_id = ${keyId} and c.run_id is null and c.project_id = ${scope.projectId} and ${follows}
      and (${state}::text is null or c.state = ${state}) and (${model}::text is null or c.model = ${model})
      and (${from}::timestamptz is null or c.created_at >= ${from}) and (${to}::timestamptz is null or c.created_at < ${to})
    order by ${order} limit ${page.limit}`.execute(db)
  return rows
}

/**
 * For each call of a page, the one before it that asked the same within the interval, where neither had an Idempotency-Key:
 * with one, a repeated request is no call of its own.
 */
async function predecessorsOf(
  db: Kysely<Database>,
  keyId: string,
  page: readonly PageRow[],
): Promise<ReadonlyMap<string, string>> {
  const moments = page.map(({ at }) => at).toSorted()
  const [oldest, newest] = [moments[0], moments.at(-1)]
  if (oldest === undefined || newest === undefined) return new Map()
  const { rows } = await sql<{ id: string; repeats: string }>`
    select n.id, n.repeats from (
      select c.id, c.created_at, lag(c.id) over same as repeats, lag(c.created_at) over same as repeated_at
      from call c
      where c.api_key_id = ${keyId} and c.run_id is null and c.path not like 'v1/%/%'
        and c.created_at between ${oldest}::timestamptz - ${REPEAT_INTERVAL}::interval and ${newest}::timestamptz
      window same as (partition by c.digest order by c.created_at, c.id)
    ) n where n.repeated_at > n.created_at - ${REPEAT_INTERVAL}::interval`.execute(db)
  return new Map(rows.map(({ id, repeats }) => [id, repeats]))
}

interface Known {
  readonly predecessors: ReadonlyMap<string, string>
  readonly entries: ReadonlyMap<string | null, readonly RunEntry[]>
}

function groupsOf(calls: readonly KeyCallView[], { predecessors, entries }: Known): KeyCallList['likelyRepeats'] {
  const repeating = calls.filter(({ repeats }) => repeats !== null)
  const groups = Map.groupBy(repeating, ({ id }) => earliest(id, predecessors))
  return Array.from(groups, ([first, group]) => ({
    first,
    repeats: group.map(({ id }) => id),
    charged: chargedIn(group.flatMap(({ id }) => entries.get(id) ?? [])),
  }))
}

function earliest(id: string, predecessors: ReadonlyMap<string, string>): string {
  let first = id
  for (let before = predecessors.get(first); before !== undefined; before = predecessors.get(first)) first = before
  return first
}

/** What entries of the journal cost, by the money they were paid with. */
export function chargedIn(entries: readonly RunEntry[]): KeyCallView['charged'] {
  return [...Map.groupBy(entries, ({ money }) => money).values()].map((group) => {
    const { balanceClass, currency } = firstOf(group)
    return { balanceClass, charged: toAmount(sum(group.map(spendOf)), currency) }
  })
}

/** See the gateway's `placeOf`, which makes these paths. */
function idempotencyKeyIn(path: string): string | null {
  const [, , ...header] = path.split('/')
  return header.length > 0 ? header.join('/') : null
}
