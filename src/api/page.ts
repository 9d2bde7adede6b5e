import type { Order, Page } from '#contracts/api-page.ts'
import type { Problem } from '#contracts/codes.ts'
import { utcMomentSchema } from '#contracts/instant.ts'
import { canonical } from '#db/call.ts'
import { sha256 } from '#db/ids.ts'
import { isId } from './access.ts'
import { faulty } from './validation.ts'

/** A request for a page, checked by its schema. */
interface Asked {
  readonly url: string
  readonly query: { readonly limit: number; readonly order: Order; readonly cursor?: string | undefined }
}

/** Enough to tell a mistake; nobody gains anything by making two listings look the same. */
const MARK_LENGTH = 8

/**
 * The page that a request asks for. Its cursor is bound to the address, the order and the filters that it was made with:
 * with others it would skip some and repeat others.
 *
 * @throws Problem for a cursor of another listing
 */
export function pageAsked(request: Asked, isPlace: (text: string) => boolean = isId): Page {
  const { limit, order, cursor } = request.query
  if (cursor === undefined) return { limit, order, after: undefined }
  const [mark, ...rest] = cursor.split('.')
  const after = rest.join('.')
  if (mark !== markOf(request) || !isPlace(after)) throw badCursor()
  return { limit, order, after }
}

/** A full page may have a next one: it goes on behind the last one of this. */
export function pageFound<Item>(
  request: Asked,
  items: readonly Item[],
  placeOf: (item: Item) => string,
): { readonly items: Item[]; readonly nextCursor: string | null } {
  const last = items.length === request.query.limit ? items.at(-1) : undefined
  return { items: [...items], nextCursor: last === undefined ? null : `${markOf(request)}.${placeOf(last)}` }
}

/** The same of what stands at its id. */
export function pageOf<Item extends { readonly id: string }>(request: Asked, items: readonly Item[]) {
  return pageFound(request, items, ({ id }) => id)
}

/** A `seq`: movements are counted. */
export function isCount(text: string): boolean {
  return /^\d{1,18}$/.test(text)
}

/** A number of what there is far less of, such as rows of a dataset: an `integer` of Postgres. */
export function isNumber(text: string): boolean {
  return /^\d{1,9}$/.test(text)
}

const MOMENT_AND_ID = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)_([\da-f-]{36})$/

/** `<moment to the microsecond>_<id>`: for what comes in time. */
export function isMomentAndId(text: string): boolean {
  const [, at = '', id = ''] = MOMENT_AND_ID.exec(text) ?? []
  return isId(id) && utcMomentSchema.safeParse(at).success
}

function markOf({ url, query }: Asked): string {
  const { limit: _limit, cursor: _cursor, ...asked } = query
  return sha256(`${url.split('?')[0]}\n${canonical(asked)}`)
    .toString('hex')
    .slice(0, MARK_LENGTH)
}

function badCursor(): Problem {
  return faulty(
    [{ path: 'query.cursor', message: 'is not a cursor of this listing, in this order and with these filters' }],
    'Send `nextCursor` of the page before with the same order and filters, or leave it out.',
  )
}
