import type { Page } from '#contracts/api-page.ts'
import type { KeyCallList, KeyCallView } from '#contracts/api-call.ts'
import { sql, type Kysely } from 'kysely'
import { attemptMoney } from './attempt-money.ts'
import { readCallJournal } from './call-journal.ts'
import { readCalls } from './call-read.ts'
import type { Scope } from './database.ts'
import { callsBy } from './page.ts'
import { instantText } from './instant.ts'
import { chargedIn, likelyPredecessors, repeatGroups } from './likely-repeats.ts'
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
  const predecessors = await predecessorsOf(db, scope, { keyId: filter.keyId, page })
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
  const oldestFirst = asked.order === 'asc' ? callIds : callIds.toReversed()
  return { calls, likelyRepeats: repeatGroups(oldestFirst, { predecessors, entries }) }
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

/** What each call of a page likely repeats. */
async function predecessorsOf(
  db: Kysely<Database>,
  scope: Scope,
  { keyId, page }: { readonly keyId: string; readonly page: readonly PageRow[] },
): Promise<ReadonlyMap<string, string>> {
  const moments = page.map(({ at }) => at).toSorted()
  const [from, to] = [moments[0], moments.at(-1)]
  return from === undefined || to === undefined ? new Map() : likelyPredecessors(db, scope, { of: { keyId }, from, to })
}

/** See the gateway's `placeOf`, which makes these paths. */
function idempotencyKeyIn(path: string): string | null {
  const [, , ...header] = path.split('/')
  return header.length > 0 ? header.join('/') : null
}
