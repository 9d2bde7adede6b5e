import { z } from 'zod'

/** What answers of the gateway have beside the shapes of the clients that it answers. */

/** In the last event of a stream: what stands in the headers of an answer that comes whole. */
export const spendingSchema = z
  .object({
    call_id: z.string(),
    route: z.string().optional(),
    balance_class: z.string().optional(),
    cost: z.string().describe('Decimal.'),
    currency: z.string().optional(),
    attempts: z.int().optional(),
    remaining: z.string().optional().describe('What the envelope can still pay.'),
  })
  .meta({ id: 'Spending' })

/** Of an error: the call, what to do about it, and what there is of the money or the limit that stopped it. */
export const refusalMembers = {
  remedy: z.string().optional().describe('What to do about it.'),
  call_id: z.string().optional(),
  limit: z.string().optional().describe('What bound the call.'),
  currency: z.string().nullish().describe('Of the amounts; null where calls or tokens are counted.'),
  needed: z.string().optional(),
  spent: z.string().nullish(),
  held: z.string().nullish(),
  remaining: z.string().optional(),
  resets_at: z.iso.datetime().nullish(),
}
