import { invariant } from '#domain/invariant.ts'
import { parseDecimal, type Nano } from '#domain/money.ts'
import type { RouteBounds } from '#domain/route-choice.ts'
import { z } from 'zod'
import { currencyCode } from './catalog.ts'
import { BALANCE_CLASSES } from './names.ts'

/** Most names of one list. */
const MAX_NAMES = 100

const names = z.array(z.string().min(1).max(100)).min(1).max(MAX_NAMES)

const price = z
  .string()
  .refine((text) => parseDecimal(text).ok, 'is not a decimal string with at most nine decimals')
  .meta({ examples: ['2.50'] })

const maxPriceSchema = z
  .strictObject({ currency: currencyCode, input: price.optional(), output: price.optional() })
  .refine(({ input, output }) => input !== undefined || output !== undefined, 'bounds neither input nor output')

/** What the calls of a run, or of a key, may use. What is left out is not bound. */
export const constraintsSchema = z
  .strictObject({
    models: names.optional().describe('Catalog models.'),
    providers: names.optional(),
    balanceClasses: z.array(z.enum(BALANCE_CLASSES)).min(1).max(BALANCE_CLASSES.length).optional(),
    maxPrices: z
      .array(maxPriceSchema)
      .min(1)
      .max(16)
      .refine((prices) => new Set(prices.map(({ currency }) => currency)).size === prices.length, {
        message: 'names a currency twice',
      })
      .optional()
      .describe(
        'The most that 1,000,000 tokens may cost, in the major unit of a currency; cached, written and reasoning tokens ' +
          'count as input and output. Routes that are sold in a currency that is not named are not used.',
      ),
  })
  .meta({ id: 'Constraints' })

export type Constraints = z.infer<typeof constraintsSchema>

/** The constraints of a run and of its key together: every route of its calls keeps both. */
export function constraintsOf(
  run: Constraints | null | undefined,
  key: Constraints | null | undefined,
): readonly RouteBounds[] {
  return [run, key].flatMap((each) => (each ? [boundsOf(each)] : []))
}

function boundsOf({ maxPrices, ...lists }: Constraints): RouteBounds {
  return {
    ...lists,
    ...(maxPrices && {
      maxPrices: maxPrices.map(({ currency, input, output }) => ({
        currency,
        inputNanoPerMillion: nanoOf(input),
        outputNanoPerMillion: nanoOf(output),
      })),
    }),
  }
}

function nanoOf(text: string | undefined): Nano | undefined {
  if (text === undefined) return undefined
  const parsed = parseDecimal(text)
  invariant(parsed.ok, 'the schema has checked the price')
  return parsed.nano
}
