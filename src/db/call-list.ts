import type { CallEntry } from '#contracts/api-call.ts'
import type { Page } from '#contracts/api-page.ts'
import type { BalanceClass } from '#contracts/names.ts'
import type { Outcome } from '#domain/policy.ts'
import { sql, type Kysely, type RawBuilder } from 'kysely'
import { attemptMoney } from './attempt-money.ts'
import { readCallJournal } from './call-journal.ts'
import { readCalls } from './call-read.ts'
import type { Scope } from './database.ts'
import { instantText } from './instant.ts'
import { chargedIn } from './likely-repeats.ts'
import { callsBy } from './page.ts'
import type { Database } from './schema.ts'

export interface CallFilter {
  readonly runId?: string | undefined
  readonly keyId?: string | undefined
  readonly model?: string | undefined
  readonly state?: 'open' | 'answered' | undefined
  /** Of one of its attempts, all three of the same. */
  readonly route?: string | undefined
  readonly outcome?: Outcome | undefined
  readonly balanceClass?: BalanceClass | undefined
  readonly from?: string | undefined
  readonly to?: string | undefined
}

interface PageRow {
  readonly id: string
  readonly at: string
  readonly runId: string | null
  readonly keyId: string
}

/** The calls of a project, of runs and of keys alike, in time, each with its attempts. A place is `<at>_<id>`. */
export async function listCalls(
  db: Kysely<Database>,
  scope: Scope,
  { filter, page }: { readonly filter: CallFilter; readonly page: Page },
): Promise<readonly CallEntry[]> {
  const rows = await pageOf(db, scope, { filter, page })
  const callIds = rows.map(({ id }) => id)
  const journal = await readCallJournal(db, scope, callIds)
  const reports = await readCalls(db, scope, { of: { callIds }, attempts: attemptMoney(journal) })
  const byId = new Map(reports.map((report) => [report.id, report]))
  const entries = Map.groupBy(journal, ({ callId }) => callId)
  return rows.flatMap(({ id, at, runId, keyId }): CallEntry[] => {
    const report = byId.get(id)
    return report ? [{ ...report, at, runId, keyId, charged: chargedIn(entries.get(id) ?? []) }] : []
  })
}

async function pageOf(
  db: Kysely<Database>,
  scope: Scope,
  { filter, page }: { readonly filter: CallFilter; readonly page: Page },
): Promise<readonly PageRow[]> {
  const { follows, order } = callsBy(page)
  const pageWhere = (part: RawBuilder<unknown> | false) => sql`
    (select c.id, c.created_at, c.run_id, c.api_key_id from call c
    where ${all([
      sql`c.project_id = ${scope.projectId}`,
      part,
      follows,
      filter.runId !== undefined && sql`c.run_id = ${filter.runId}`,
      filter.keyId !== undefined && sql`c.api_key_id = ${filter.keyId}`,
      filter.model !== undefined && sql`c.model = ${filter.model}`,
      filter.state !== undefined && sql`c.state = ${filter.state}`,
      filter.from !== undefined && sql`c.created_at >= ${filter.from}::timestamptz`,
      filter.to !== undefined && sql`c.created_at < ${filter.to}::timestamptz`,
      attempted(filter),
    ])}
    order by ${order} limit ${page.limit})`
  // A key's calls of runs and those of none have an index each: two pages, of which one is made.
  const parts = filter.keyId === undefined ? [false as const] : [sql`c.run_id is null`, sql`c.run_id is not null`]
  const { rows } = await sql<PageRow>`
    select c.id, ${instantText(sql`c.created_at`)} as at, c.run_id as "runId", c.api_key_id as "keyId"
    from (${sql.join(parts.map(pageWhere), sql` union all `)}) c
    order by ${order} limit ${page.limit}`.execute(db)
  return rows
}

function attempted({ route, outcome, balanceClass }: CallFilter): RawBuilder<unknown> | false {
  if (route === undefined && outcome === undefined && balanceClass === undefined) return false
  const attempt = all([
    sql`a.call_id = c.id`,
    route !== undefined && sql`a.plan->>'route' = ${route}`,
    outcome !== undefined && sql`a.outcome = ${outcome}`,
    balanceClass !== undefined &&
      sql`exists (select from account p where p.id = a.account_id and p.balance_class = ${balanceClass})`,
  ])
  return sql`exists (select from attempt a where ${attempt})`
}

function all(conditions: readonly (RawBuilder<unknown> | false)[]): RawBuilder<unknown> {
  return sql.join(
    conditions.filter((condition) => condition !== false),
    sql` and `,
  )
}
