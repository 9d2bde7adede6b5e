import { z } from 'zod'
import { amountSchema } from './api-money.ts'
import { BALANCE_CLASSES, CERTAINTIES, TRANSFER_CODES, USES } from './names.ts'

const moment = z.iso.datetime()

/** Names such as `Europe/Berlin`: what Postgres and JavaScript both read the same way. */
const ZONE_NAME = /^[A-Za-z_]+(?:\/[\w+-]+)*$/

function isTimeZone(name: string): boolean {
  try {
    return ZONE_NAME.test(name) && new Intl.DateTimeFormat('en', { timeZone: name }).format(0) !== ''
  } catch {
    return false
  }
}

export const statementParamsSchema = z.strictObject({
  id: z.string(),
  month: z.string().regex(/^2\d{3}-(0[1-9]|1[0-2])$/, { error: 'is not a month such as 2026-11' }),
})

export const statementQuerySchema = z.strictObject({
  format: z.enum(['json', 'csv']).default('json'),
  timeZone: z
    .string()
    .max(60)
    .refine(isTimeZone, { error: 'is not a time zone such as Europe/Berlin' })
    .default('UTC')
    .describe('Where the month begins and ends: a name of the IANA time zone database.'),
})

const named = z.object({ id: z.uuid(), name: z.string() })

const movementSchema = z
  .object({
    id: z.uuid().describe('The ledger entry.'),
    recordedAt: moment,
    code: z.enum(TRANSFER_CODES),
    amount: amountSchema.describe('Negative: out of the wallet.'),
    balance: amountSchema.describe('Of the account, right after it.'),
    counterparty: z.string().describe('The kind of the other account.'),
    reference: z.string().nullable().describe("The payment's own number."),
    reverses: z.uuid().nullable().describe('The deposit that a reversal takes back.'),
    lot: z.object({ id: z.uuid(), source: z.string(), expiresAt: moment.nullable() }).nullable(),
    quote: z
      .object({ id: z.uuid(), source: z.string(), sell: amountSchema, buy: amountSchema })
      .nullable()
      .describe('The exchange rate: so much of one currency bought so much of the other.'),
    envelope: z.object({ id: z.uuid(), kind: z.string() }).nullable(),
    run: z.object({ id: z.uuid(), agent: z.string() }).nullable(),
    apiKey: named.nullable(),
    model: z.string().nullable().describe('The catalog model that was asked for.'),
    call: z.object({ id: z.uuid(), attempt: z.int().nullable() }).nullable(),
    certainty: z.enum(CERTAINTIES).nullable(),
    use: z.enum(USES).nullable(),
  })
  .meta({ id: 'StatementMovement' })

const spendSchema = z
  .object({
    model: z.string().describe('The catalog model that was asked for.'),
    provider: z.string(),
    upstreamModel: z.string(),
    route: z.string(),
    attempts: z.int().describe('Attempts that were charged first in this month.'),
    captured: amountSchema,
    overage: amountSchema,
    corrected: amountSchema.describe('Later truth minus estimate; signed.'),
    charged: amountSchema.describe(
      'captured + overage + corrected = useful + wasted = billed + estimated + unknown, each as it was booked.',
    ),
    useful: amountSchema,
    wasted: amountSchema,
    billed: amountSchema,
    estimated: amountSchema,
    unknown: amountSchema,
    onDebt: amountSchema.describe('What of it is owed: the pocket had nothing left.'),
    fromWallet: amountSchema.describe(
      'What of it the wallet paid past the pocket, as corrections after the close once did; signed.',
    ),
  })
  .meta({ id: 'StatementSpend' })

const balanceFields = {
  balanceClass: z.enum(BALANCE_CLASSES),
  currency: z.string(),
  opening: amountSchema,
  closing: amountSchema,
}

/** Everything of a wallet in a calendar month. */
export const statementSchema = z
  .object({
    walletId: z.uuid(),
    project: named,
    month: z.string(),
    timeZone: z.string(),
    from: moment,
    to: moment.describe('Not in it any more.'),
    writtenAt: moment,
    final: z.boolean().describe('The month is over, and nothing can be recorded in it any more.'),
    balances: z.array(
      z.object({
        accountId: z.uuid().nullable().describe('`null`: only envelopes had money of this kind, from an exchange.'),
        ...balanceFields,
        inEnvelopes: z.object({ opening: amountSchema, closing: amountSchema }),
        movements: z.array(movementSchema),
        totals: z.array(
          z.object({ code: z.enum(TRANSFER_CODES), in: amountSchema, out: amountSchema, count: z.int() }),
        ),
      }),
    ),
    debts: z
      .array(
        z.object({
          accountId: z.uuid(),
          currency: z.string(),
          opening: amountSchema,
          changes: z.array(z.object({ code: z.enum(TRANSFER_CODES), amount: amountSchema, count: z.int() })),
          closing: amountSchema,
        }),
      )
      .describe('What overages left to be paid by the next deposit.'),
    envelopes: z
      .array(
        z.object({
          id: z.uuid(),
          kind: z.string(),
          parentId: z.uuid().nullable(),
          run: z.object({ id: z.uuid(), agent: z.string().nullable(), model: z.string().nullable() }).nullable(),
          apiKey: named.nullable(),
          createdAt: moment,
          closedAt: moment.nullable(),
          pockets: z.array(
            z.object({
              accountId: z.uuid(),
              ...balanceFields,
              heldAtClosing: amountSchema,
              changes: z
                .array(z.object({ code: z.enum(TRANSFER_CODES), amount: amountSchema, count: z.int() }))
                .describe('Fundings, carvings and returns; negative: out of the pocket.'),
              paid: amountSchema.describe('What it paid for calls: opening + changes - paid = closing.'),
              spends: z.array(spendSchema),
            }),
          ),
        }),
      )
      .describe('Those that were open in the month, and those that a correction reached.'),
    end: z.literal(true).describe('The last word: a statement without it is cut off.'),
  })
  .meta({ id: 'Statement' })

export type StatementMovementView = z.infer<typeof movementSchema>
export type StatementView = z.infer<typeof statementSchema>
