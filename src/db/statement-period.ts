import { sql, type Kysely } from 'kysely'
import { instantText, justBefore } from './instant.ts'
import type { Database } from './schema.ts'

/** A calendar month in a time zone, as instants of the database's clock. */
export interface StatementPeriod {
  /** The month's first microsecond. */
  readonly from: string
  /** The next month's first microsecond. */
  readonly to: string
  /** The last microsecond before the month. */
  readonly openedAt: string
  /** The month's last microsecond; now, while it lasts. */
  readonly closedAt: string
  readonly writtenAt: string
  /** Nothing can be recorded in it any more. */
  readonly final: boolean
}

/** `month` is `YYYY-MM`. Undefined when it has not begun yet in that time zone, by the database's clock. */
export async function statementPeriod(
  db: Kysely<Database>,
  request: { readonly month: string; readonly timeZone: string },
): Promise<StatementPeriod | undefined> {
  const first = `${request.month}-01`
  const { rows } = await sql<{ from: string; to: string; now: string; begun: boolean; over: boolean; final: boolean }>`
    select ${instantText(sql`m.first`)} as from, ${instantText(sql`m.next`)} as to, ${instantText(sql`m.now`)} as now,
      m.first <= m.now as begun, m.next <= m.now as over, m.next < m.now - instant_slack() as final
    from (
      select ${first}::timestamp at time zone ${request.timeZone} as first,
        (${first}::timestamp + interval '1 month') at time zone ${request.timeZone} as next, clock_timestamp() as now
    ) m`.execute(db)
  const [row] = rows
  if (!row) throw new Error('the calendar of the database answered nothing')
  if (!row.begun) return undefined
  const { from, to, now, over, final } = row
  return { from, to, openedAt: justBefore(from), closedAt: over ? justBefore(to) : now, writtenAt: now, final }
}
