import { z } from 'zod'
import { amountSchema, positiveAmountSchema } from './api-money.ts'
import { nextCursorSchema } from './api-page.ts'
import { BALANCE_CLASSES } from './names.ts'
import { storableText } from './storable-text.ts'

const name = storableText.trim().min(1).max(100)
const moment = z.iso.datetime()

export const projectRequestSchema = z.strictObject({ name })

export const projectSchema = z.object({ id: z.uuid(), name: z.string(), createdAt: moment }).meta({ id: 'Project' })

export const projectListSchema = z.object({ projects: z.array(projectSchema), nextCursor: nextCursorSchema })

export const keyRequestSchema = z.strictObject({ name })

export const keySchema = z
  .object({
    id: z.uuid(),
    projectId: z.uuid(),
    name: z.string(),
    hint: z.string().describe('The beginning of the secret, to tell keys apart.'),
    createdAt: moment,
    revokedAt: moment.nullable(),
  })
  .meta({ id: 'Key' })

export const keyListSchema = z.object({ keys: z.array(keySchema) })

/** The secret is answered once: only its SHA-256 is kept, so a repeated request is answered without it. */
export const newKeySchema = keySchema
  .extend({ secret: z.string().optional(), remedy: z.string().optional() })
  .meta({ id: 'NewKey' })

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
        inEnvelopes: amountSchema.describe('What stands in envelopes that are not closed, held money included.'),
      }),
    ),
    debts: z.array(amountSchema).describe('Overages that nothing covered: the next deposit pays them first.'),
  })
  .meta({ id: 'Wallet' })

export const depositRequestSchema = z.strictObject({
  walletId: z.string(),
  balanceClass: z.enum(BALANCE_CLASSES),
  amount: positiveAmountSchema,
  reference: storableText.trim().min(1).max(200).describe("The payment's own number: unique within the project."),
})

export const depositSchema = z
  .object({
    id: z.uuid(),
    walletId: z.uuid(),
    balanceClass: z.enum(BALANCE_CLASSES),
    amount: amountSchema,
    reference: z.string(),
    debtPaid: amountSchema.describe('What of it went to a debt at once.'),
    recordedAt: moment,
  })
  .meta({ id: 'Deposit' })

export type ProjectView = z.infer<typeof projectSchema>
export type KeyView = z.infer<typeof keySchema>
export type WalletView = z.infer<typeof walletSchema>
export type DepositView = z.infer<typeof depositSchema>
