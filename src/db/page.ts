import type { Page } from '#contracts/api-page.ts'
import { sql, type RawBuilder } from 'kysely'

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
