import { z } from 'zod'
import { nextCursorSchema, onwardQuerySchema } from './api-page.ts'
import { currencyCode, priceSchema } from './catalog.ts'
import { storableText } from './storable-text.ts'

/** Most prices of one request: longer lists come in parts, which is harmless, as only differences are stored. */
export const MAX_LISTED = 500

export const priceListSchema = z
  .strictObject({ prices: z.array(priceSchema).min(1).max(MAX_LISTED) })
  .superRefine(({ prices }, context) => {
    const seen = new Set<string>()
    for (const [index, { provider, upstreamModel, currency, effectiveAt = 'now' }] of prices.entries()) {
      const name = `${provider} ${upstreamModel} in ${currency}, from ${effectiveAt} on,`
      if (seen.has(name)) context.addIssue({ code: 'custom', path: ['prices', index], message: `${name} stands twice` })
      seen.add(name)
    }
  })

const keySchema = { provider: z.string(), upstreamModel: z.string(), currency: currencyCode }

const listedChangeSchema = z.object({
  ...keySchema,
  effectiveAt: z.string().nullable().describe('`null`: from now on.'),
  changes: z.array(
    z.object({
      component: z.string().describe('Such as `input`, `output above 200000` or `toolFees.web_search`.'),
      from: z
        .string()
        .nullable()
        .describe('In the major unit, per million tokens or each; `null` where there was none.'),
      to: z.string().nullable(),
    }),
  ),
})

export const priceComparisonSchema = z
  .object({
    added: z.array(listedChangeSchema).describe('Models that had no price, with every component that is not nothing.'),
    changed: z.array(listedChangeSchema).describe('Models with another price, with the components that differ.'),
    unchanged: z.int(),
  })
  .meta({ id: 'PriceComparison' })

export const pricesQuerySchema = onwardQuerySchema.extend({ provider: storableText.max(100).optional() })

export const bookedPricesSchema = z
  .object({
    prices: z.array(
      z.object({
        id: z.uuid(),
        ...keySchema,
        effectiveAt: z.iso.datetime(),
        inForce: z.boolean().describe('False: it comes into force later.'),
        components: z
          .record(z.string(), z.string())
          .describe('In the major unit: tokens per million, fees each. What is nothing is left out.'),
      }),
    ),
    nextCursor: nextCursorSchema,
  })
  .meta({ id: 'PriceBook' })

export type PriceComparison = z.infer<typeof priceComparisonSchema>
