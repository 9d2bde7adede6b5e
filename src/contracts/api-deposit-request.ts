import { z } from 'zod'
import { amountSchema } from './api-money.ts'
import { nextCursorSchema, pageQuerySchema } from './api-page.ts'
import { BALANCE_CLASSES } from './names.ts'

const moment = z.iso.datetime()

/** A deposit that is more than one operator may make alone. */
export const depositRequestedSchema = z
  .object({
    id: z.uuid(),
    projectId: z.uuid(),
    walletId: z.uuid(),
    balanceClass: z.enum(BALANCE_CLASSES),
    amount: amountSchema,
    reference: z.string(),
    askedBy: z.uuid().nullable().describe('The key that asked; null: a payment provider.'),
    reason: z
      .enum(['amount', 'day'])
      .describe(
        'Why it waits: `amount`, it is larger than the bound; `day`, with what operators have booked alone within 24 hours it is.',
      ),
    state: z.enum(['waiting', 'approved', 'refused']),
    decidedBy: z.uuid().nullable(),
    decidedAt: moment.nullable(),
    depositId: z.uuid().nullable().describe('What it became.'),
    createdAt: moment,
  })
  .meta({ id: 'DepositRequested' })

export const depositRequestListSchema = z.object({
  depositRequests: z.array(depositRequestedSchema),
  nextCursor: nextCursorSchema,
})

export const depositRequestQuerySchema = pageQuerySchema.extend({
  state: z.enum(['waiting', 'approved', 'refused']).optional(),
  projectId: z.uuid().optional(),
})

export type DepositRequestedView = z.infer<typeof depositRequestedSchema>
