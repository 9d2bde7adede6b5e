import { z } from 'zod'
import { momentSchema } from './instant.ts'
import { storableText } from './storable-text.ts'

/** Most items of one page. */
const MAX_LIMIT = 200
const DEFAULT_LIMIT = 50

export const ORDERS = ['asc', 'desc'] as const
export type Order = (typeof ORDERS)[number]

const limit = z.coerce.number().int().min(1).max(MAX_LIMIT).default(DEFAULT_LIMIT)
const cursor = z
  .string()
  .max(200)
  .optional()
  .describe('`nextCursor` of the page before, with the same order and filters')

/** What every paged listing takes. */
export const pageQuerySchema = z.strictObject({
  limit,
  cursor,
  order: z.enum(ORDERS).default('desc').describe('`desc`: newest first.'),
})

/** The same for what is read from its beginning. */
export const onwardQuerySchema = z.strictObject({
  limit,
  cursor,
  order: z.enum(ORDERS).default('asc').describe('`asc`: from the beginning.'),
})

/** What is listed of a period: of what comes in time. */
export const periodQuery = {
  from: momentSchema.optional().describe('At or after.'),
  to: momentSchema.optional().describe('Before.'),
}

/** The name that a listing is narrowed to, of a model or of a route: any text, since what is not there leaves nothing. */
export const filterText = storableText.min(1).max(100)

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
