import { z } from 'zod'

/** Most items of one page. */
const MAX_LIMIT = 200
const DEFAULT_LIMIT = 50

/** What every paged listing takes. */
export const pageQuerySchema = z.strictObject({
  limit: z.coerce.number().int().min(1).max(MAX_LIMIT).default(DEFAULT_LIMIT),
  cursor: z.string().max(100).optional().describe('`nextCursor` of the page before'),
})

/** `null` when this was the last page. */
export const nextCursorSchema = z.string().nullable()
