import { parseDecimal, type AmountProblem } from '#domain/money.ts'
import { z } from 'zod'
import { currencyCode } from './catalog.ts'
import { BALANCE_CLASSES } from './names.ts'

/** Most pockets of one request: there are two balance classes, and few currencies. */
const MAX_POCKETS = 16

const PROBLEMS_IN_WORDS = {
  malformed: 'is not a decimal number without sign or exponent',
  too_precise: 'has more than nine decimals',
  too_large: 'is more than 1000000',
} as const satisfies Record<AmountProblem, string>

/** A decimal string in the major unit. */
const decimal = z
  .string({ error: ({ input }) => (input === undefined ? 'is missing' : 'is not a string') })
  .superRefine((text, context) => {
    const parsed = parseDecimal(text)
    if (!parsed.ok) context.addIssue({ code: 'custom', message: PROBLEMS_IN_WORDS[parsed.reason] })
  })
  .meta({ pattern: String.raw`^(0|[1-9]\d{0,6})(\.\d{1,9})?$`, examples: ['0.002350'] })

/** The same, more than zero. */
const positiveDecimal = decimal.refine((text) => !/^0(\.0+)?$/.test(text), 'is zero')

/** Money as a client sends it: more than zero. */
export const positiveAmountSchema = z
  .strictObject({ amount: positiveDecimal, currency: currencyCode })
  .meta({ id: 'PositiveAmount', description: 'More than zero, in the major unit of the currency.' })

/** Money as a client sends it where nothing is an amount too. */
export const amountOrZeroSchema = z
  .strictObject({ amount: decimal, currency: currencyCode })
  .meta({ id: 'AmountOrZero', description: 'In the major unit of the currency.' })

/** Money as the API answers it. */
export const amountSchema = z
  .object({ amount: z.string(), currency: z.string() })
  .meta({ id: 'Amount', description: 'A decimal string in the major unit of the currency.' })

/** What goes into each pocket of an envelope: once for each balance class and currency, and what it is exchanged to. */
export const pocketsSchema = z
  .array(
    z.strictObject({
      balanceClass: z.enum(BALANCE_CLASSES),
      amount: positiveAmountSchema.describe('What the wallet pays.'),
      exchangeTo: currencyCode
        .optional()
        .describe('The currency of the pocket, when it is another one: exchanged at the quote in force.'),
    }),
  )
  .min(1)
  .max(MAX_POCKETS)
  .superRefine((pockets, context) => {
    const seen = new Set<string>()
    pockets.forEach((pocket, index) => {
      const { balanceClass, amount, exchangeTo } = pocket
      if (exchangeTo === amount.currency) {
        const message = `${exchangeTo} cannot be exchanged to itself: leave it out`
        context.addIssue({ code: 'custom', path: [index, 'exchangeTo'], message })
      }
      const name = [balanceClass, amount.currency, ...(exchangeTo === undefined ? [] : ['to', exchangeTo])].join(' ')
      if (seen.has(name)) context.addIssue({ code: 'custom', path: [index], message: `${name} stands twice` })
      seen.add(name)
    })
  })

export type Pockets = z.infer<typeof pocketsSchema>
