import { z } from 'zod'
import { amountSchema } from './api-money.ts'
import { pageQuerySchema } from './api-page.ts'
import { instantSchema } from './instant.ts'
import { BALANCE_CLASSES, TRANSFER_CODES } from './names.ts'

export const asOfQuerySchema = z.strictObject({
  asOf: instantSchema.optional().describe('A moment of the database’s clock; now, when left out.'),
})

/** Which report of a run: as of an instant, or one of its revisions. */
export const reportQuerySchema = z
  .strictObject({
    asOf: asOfQuerySchema.shape.asOf,
    revision: z.coerce
      .number()
      .int()
      .min(1)
      .max(1_000_000_000)
      .optional()
      .describe('An earlier `revision` of the same report: as it was when it had that many ledger entries.'),
  })
  .refine(({ asOf, revision }) => asOf === undefined || revision === undefined, {
    message: 'asks for an instant and a revision: one of them',
  })

/** What every answer about an instant says of it. */
const instantFields = {
  asOf: z.iso.datetime().describe('By the clock of the database, which is that of `recordedAt`.'),
  final: z
    .boolean()
    .describe('Nothing can be recorded at or before it any more: the same question has the same answer.'),
} as const

export const accountBalanceSchema = z
  .object({
    accountId: z.uuid(),
    ...instantFields,
    kind: z.string(),
    balanceClass: z.enum(BALANCE_CLASSES).nullable(),
    walletId: z.uuid().nullable(),
    envelopeId: z.uuid().nullable(),
    posted: amountSchema.describe(
      'What came in minus what went out; negative for where money comes from. Over all accounts of a project and currency it adds up to zero.',
    ),
    held: amountSchema.describe('What open holds kept of it; for the providers’ account, what open holds could bring.'),
    version: z
      .string()
      .nullable()
      .describe('How many movements it had had by then. `null` for counterparties, which are folded.'),
  })
  .meta({ id: 'AccountBalance' })

export const walletBalancesSchema = z
  .object({
    walletId: z.uuid(),
    ...instantFields,
    balances: z.array(
      z.object({
        accountId: z.uuid().nullable().describe('`null`: only envelopes had money of this kind, from an exchange.'),
        balanceClass: z.enum(BALANCE_CLASSES),
        currency: z.string(),
        available: amountSchema,
        inEnvelopes: amountSchema.describe('What stood in its envelopes, held money included.'),
      }),
    ),
  })
  .meta({ id: 'WalletBalances' })

/** Money that came, went, or is held. */
export const accountLedgerQuerySchema = pageQuerySchema.extend({
  code: z.enum(TRANSFER_CODES).optional(),
  from: instantSchema.optional().describe('At or after.'),
  to: instantSchema.optional().describe('Before.'),
})
