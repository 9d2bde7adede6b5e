import type { Page } from '#contracts/api-page.ts'
import { sql, type RawBuilder } from 'kysely'

/** From when on, and until when, what is listed came; whole times of the database's clock, as text. */
export interface Period {
  readonly from?: string | undefined
  readonly to?: string | undefined
}

/** Whether a moment lies in a period: its beginning does, its end does not. */
export function within(moment: RawBuilder<unknown>, { from, to }: Period): RawBuilder<boolean> {
  const begins = from === undefined ? sql`true` : sql`${moment} >= ${from}::timestamptz`
  const ends = to === undefined ? sql`true` : sql`${moment} < ${to}::timestamptz`
  return sql<boolean>`(${begins} and ${ends})`
}

/** What stands behind the last one of the page before, and in which order: `column` is a place of its own for each row. */
export function pageBy(
  column: RawBuilder<unknown>,
  { after, order }: Pick<Page, 'after' | 'order'>,
): { readonly follows: RawBuilder<boolean>; readonly order: RawBuilder<unknown> } {
  const isAscending = order === 'asc'
  return {
    follows: after === undefined ? sql`true` : isAscending ? sql`${column} > ${after}` : sql`${column} < ${after}`,
    order: isAscending ? sql`${column} asc` : sql`${column} desc`,
  }
}

/** The same of calls (`c`), which come in time: a place is `<moment to the microsecond>_<id>`. */
export function callsBy({ after, order }: Pick<Page, 'after' | 'order'>): {
  readonly follows: RawBuilder<boolean>
  readonly order: RawBuilder<unknown>
} {
  const [at, id] = after?.split('_') ?? []
  const isAscending = order === 'asc'
  const way = isAscending ? sql`asc` : sql`desc`
  const beyond = isAscending ? sql`>` : sql`<`
  return {
    follows: at === undefined ? sql`true` : sql`(c.created_at, c.id) ${beyond} (${at}::timestamptz, ${id}::uuid)`,
    order: sql`c.created_at ${way}, c.id ${way}`,
  }
}
