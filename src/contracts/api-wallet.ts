import { z } from 'zod'
import { amountSchema, positiveAmountSchema } from './api-money.ts'
import { nextCursorSchema, pageQuerySchema, periodQuery } from './api-page.ts'
import { momentSchema } from './instant.ts'
import { BALANCE_CLASSES } from './names.ts'
import { storableText } from './storable-text.ts'

const moment = z.iso.datetime()
const name = storableText.trim().min(1).max(100)
const reference = storableText.trim().min(1).max(200)

/** The largest priority of a lot. */
const MAX_PRIORITY = 1_000_000

export const walletSchema = z
  .object({
    id: z.uuid(),
    projectId: z.uuid(),
    createdAt: moment,
    balances: z.array(
      z.object({
        balanceClass: z.enum(BALANCE_CLASSES),
        currency: z.string(),
        available: amountSchema,
        inLots: amountSchema.nullable().describe('Of credit: the sum of its lots, which is what is available.'),
        inEnvelopes: amountSchema.describe('What stands in envelopes that are not closed, held money included.'),
      }),
    ),
    debts: z.array(amountSchema).describe('What nothing covered: the next deposit pays it first.'),
  })
  .meta({ id: 'Wallet' })

export const depositRequestSchema = z.strictObject({
  walletId: z.string(),
  balanceClass: z.enum(BALANCE_CLASSES),
  amount: positiveAmountSchema,
  reference: reference.describe("The payment's own number: unique within the project."),
  lot: z
    .strictObject({
      source: name.describe('Where it is from, in your words; `opening` is reserved.'),
      priority: z.int().min(0).max(MAX_PRIORITY).default(100).describe('Low is drawn first.'),
      expiresAt: momentSchema.optional(),
    })
    .optional()
    .describe('Of credit only. Drawn by priority, then expiry, then age; without it, a lot that never expires.'),
})

export const depositSchema = z
  .object({
    id: z.uuid(),
    walletId: z.uuid(),
    balanceClass: z.enum(BALANCE_CLASSES),
    amount: amountSchema,
    reference: z.string(),
    lotId: z.uuid().nullable().describe('The lot that credit became.'),
    debtPaid: amountSchema.describe('What of it went to a debt at once.'),
    recordedAt: moment,
  })
  .meta({ id: 'Deposit' })

export const depositListSchema = z.object({ deposits: z.array(depositSchema), nextCursor: nextCursorSchema })

export const depositQuerySchema = pageQuerySchema.extend({
  projectId: z.string().optional().describe('Required of an operator key; a project key lists its own project.'),
  balanceClass: z.enum(BALANCE_CLASSES).optional(),
  ...periodQuery,
})

export const lotSchema = z
  .object({
    id: z.uuid(),
    source: z.string(),
    priority: z.int(),
    expiresAt: moment.nullable(),
    free: amountSchema.describe('What of it lies in the wallet: the rest is in envelopes, spent, expired or reversed.'),
    createdAt: moment,
  })
  .meta({ id: 'Lot' })

export const lotQuerySchema = pageQuerySchema.extend(periodQuery)

export const lotListSchema = z.object({ lots: z.array(lotSchema), nextCursor: nextCursorSchema })

/** The body may be left out. */
export const reversalRequestSchema = z
  .strictObject({
    shortfall: z
      .enum(['refuse', 'owe'])
      .default('refuse')
      .describe('What to do about money that is not there any more: refuse, or let the project owe it.'),
  })
  .nullish()

export const reversalSchema = z
  .object({
    id: z.uuid(),
    depositId: z.uuid(),
    amount: amountSchema,
    taken: amountSchema.describe('What the wallet had of it; of credit, what its lot had.'),
    expired: amountSchema.describe('What of the lot had expired: nobody owes it.'),
    owed: amountSchema.describe('What the project owes for the rest.'),
  })
  .meta({ id: 'Reversal' })

export const refundRequestSchema = z.strictObject({
  balanceClass: z.enum(BALANCE_CLASSES).default('direct').describe('Credit is not refundable.'),
  amount: positiveAmountSchema,
  reference: reference.describe("The payment's own number: unique within the project's refunds."),
})

export const refundSchema = z
  .object({ id: z.uuid(), walletId: z.uuid(), amount: amountSchema, reference: z.string(), recordedAt: moment })
  .meta({ id: 'Refund' })

export const quoteRequestSchema = z.strictObject({
  sell: positiveAmountSchema,
  buy: positiveAmountSchema.describe('What `sell` buys, in another currency.'),
  source: name.describe('Where the rate is from, in your words.'),
  effectiveAt: momentSchema.optional().describe('From then on; at once when left out.'),
  expiresAt: momentSchema.optional(),
})

export const quoteSchema = z
  .object({
    id: z.uuid(),
    sell: amountSchema,
    buy: amountSchema,
    source: z.string(),
    effectiveAt: moment,
    expiresAt: moment.nullable(),
  })
  .meta({ id: 'Quote' })

/** By when a quote comes into force. */
export const quoteQuerySchema = pageQuerySchema.extend(periodQuery)

export const quoteListSchema = z.object({ quotes: z.array(quoteSchema), nextCursor: nextCursorSchema })

export type WalletView = z.infer<typeof walletSchema>
export type DepositView = z.infer<typeof depositSchema>
export type DepositRequestBody = z.infer<typeof depositRequestSchema>
export type LotView = z.infer<typeof lotSchema>
export type ReversalView = z.infer<typeof reversalSchema>
export type RefundView = z.infer<typeof refundSchema>
export type QuoteView = z.infer<typeof quoteSchema>
