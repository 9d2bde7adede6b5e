import { Problem } from '#contracts/codes.ts'
import type { CallPlace } from '#db/key-call.ts'
import { isId } from './access.ts'

/** A full page may have a next one; its last id is where that begins. */
export function pageOf<Item extends { readonly id: string }>(
  items: readonly Item[],
  limit: number,
): { readonly items: Item[]; readonly nextCursor: string | null } {
  return { items: [...items], nextCursor: items.length === limit ? (items.at(-1)?.id ?? null) : null }
}

export function cursorId(cursor: string | undefined): string | undefined {
  if (cursor !== undefined && !isId(cursor)) throw badCursor()
  return cursor
}

/** A cursor that counts: the `seq` of a transfer. */
export function cursorSeq(cursor: string | undefined): string | undefined {
  if (cursor !== undefined && !/^\d{1,18}$/.test(cursor)) throw badCursor()
  return cursor
}

const CALL_CURSOR = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)_([\da-f-]{36})$/

/** A cursor among calls, which come in time. */
export function callPlace(cursor: string | undefined): CallPlace | undefined {
  if (cursor === undefined) return undefined
  const [, at = '', id = ''] = CALL_CURSOR.exec(cursor) ?? []
  if (!isId(id) || Number.isNaN(Date.parse(at))) throw badCursor()
  return { at, id }
}

export function cursorOfCall({ at, id }: CallPlace): string {
  return `${at}_${id}`
}

function badCursor(): Problem {
  const fault = { path: 'query.cursor', message: 'is not a cursor of this listing' }
  return new Problem('invalid_request', `${fault.path}: ${fault.message}`, {
    remedy: 'Send `nextCursor` of the page before, or leave it out.',
    extra: { errors: [fault] },
  })
}
