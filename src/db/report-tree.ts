import type { Report, ReportChild } from '#contracts/report.ts'
import { formatNano } from '#domain/money.ts'
import { sql, type Kysely } from 'kysely'
import { attemptMoney } from './attempt-money.ts'
import type { Scope } from './database.ts'
import { readRunJournal } from './journal.ts'
import { totalsOf } from './report-totals.ts'
import { runThen } from './report-view.ts'
import type { Database } from './schema.ts'

const DECIMALS = 9

interface Row {
  readonly id: string
  readonly parentId: string
  readonly path: string
  readonly agent: string
  readonly model: string
  readonly state: Report['state']
  readonly reason: string | null
}

/**
 * The runs below a run, each with what it spent itself, from its own journal as it was at the same moment.
 *
 * @param view.at an instant to look back to, as an `Instant` is written; undefined: now
 */
export async function childrenOf(
  db: Kysely<Database>,
  scope: Scope,
  view: { readonly runId: string; readonly snapshot: string; readonly at: string | undefined },
): Promise<readonly ReportChild[]> {
  const { runId, at } = view
  const { rows } = await sql<Row>`
    with recursive below as (
      select r.id from run r where r.parent_run_id = ${runId} and r.project_id = ${scope.projectId}
      union all
      select r.id from below b join run r on r.parent_run_id = b.id
    )
    select r.id, r.parent_run_id as "parentId", r.parent_path as path, r.agent, r.model, r.state, r.reason
    from below join run r on r.id = below.id
    where ${at ?? null}::timestamptz is null or r.created_at <= ${at ?? null}::timestamptz
    order by r.created_at, r.id`.execute(db)
  const known = new Map<string, ReportChild>()
  const tops: ReportChild[] = []
  for (const row of rows) {
    const child = await childOf(db, scope, { row, ...view })
    known.set(row.id, child)
    if (row.parentId === runId) tops.push(child)
    else known.get(row.parentId)?.children.push(child)
  }
  return tops
}

async function childOf(
  db: Kysely<Database>,
  scope: Scope,
  view: { readonly row: Row; readonly snapshot: string; readonly at: string | undefined },
): Promise<ReportChild> {
  const { row, snapshot, at } = view
  const { id, path, agent, model } = row
  const journal = await readRunJournal(db, scope, { runId: id, snapshot })
  const entries = at === undefined ? journal : journal.filter((entry) => entry.recordedAt <= at)
  const attempts = attemptMoney(entries)
  const then = at === undefined ? row : await runThen(db, scope, { runId: id, at })
  return {
    runId: id,
    path,
    agent,
    model,
    state: then?.state ?? 'queued',
    reason: then?.reason ?? null,
    totals: totalsOf(entries, attempts),
    attempts: [...attempts.values()].filter(({ entries: [first] }) => first?.callId !== null).length,
    children: [],
  }
}

/** What a run and all below it spent. */
export function treeTotals(own: Report['totals'], children: readonly ReportChild[]): Report['tree']['totals'] {
  const all = [...own, ...children.flatMap(allOf)]
  return [...Map.groupBy(all, ({ balanceClass, currency }) => `${balanceClass} ${currency}`).values()].flatMap(
    ([first, ...rest]) => {
      if (!first) return []
      const { balanceClass, currency } = first
      const add = (name: 'spent' | 'held') => ({
        amount: formatNano([first, ...rest].reduce((total, each) => total + nanoOf(each[name].amount), 0n)),
        currency,
      })
      return [{ balanceClass, currency, spent: add('spent'), held: add('held') }]
    },
  )
}

function allOf(child: ReportChild): Report['totals'] {
  return [...child.totals, ...child.children.flatMap(allOf)]
}

/** Of an amount of a report, however large: sums have no bound. */
function nanoOf(amount: string): bigint {
  const isNegative = amount.startsWith('-')
  const [whole = '0', fraction = ''] = (isNegative ? amount.slice(1) : amount).split('.')
  const nano = BigInt(whole + fraction.padEnd(DECIMALS, '0'))
  return isNegative ? -nano : nano
}
