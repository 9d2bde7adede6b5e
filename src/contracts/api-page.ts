import { z } from 'zod'

/** Most items of one page. */
const MAX_LIMIT = 200
const DEFAULT_LIMIT = 50

/** What every paged listing takes. */
export const pageQuerySchema = z.strictObject({
  limit: z.coerce.number().int().min(1).max(MAX_LIMIT).default(DEFAULT_LIMIT),
  cursor: z.string().max(100).optional().describe('`nextCursor` of the page before'),
})

export const ORDERS = ['asc', 'desc'] as const
export type Order = (typeof ORDERS)[number]

/** The same for one that can be read from either end. A cursor goes on in the order and with the filters that it came from. */
export const orderedQuerySchema = pageQuerySchema.extend({
  cursor: z.string().max(200).optional().describe('`nextCursor` of the page before, with the same order and filters'),
  order: z.enum(ORDERS).default('desc').describe('`desc`: newest first.'),
})

/** A page as it is asked for. */
export interface Page {
  readonly limit: number
  readonly order: Order
  /** Where the last one of the page before stands; undefined for the first page. */
  readonly after: string | undefined
}

/** Of what several people may change at the same time. */
export const versionSchema = z.int().describe('Counts its changes; its ETag begins with it.')

/** `null` when this was the last page. */
export const nextCursorSchema = z.string().nullable()
