import { parseDecimal } from '#domain/money.ts'
import { z } from 'zod'
import { BALANCE_CLASSES } from './names.ts'

const name = z.string().regex(/^[a-z0-9][a-z0-9._:/-]{0,99}$/i, 'letters, digits and . _ : / - (at most 100)')

/** A price in the major unit of its currency per 1 000 000 tokens, as a decimal string. */
const pricePerMillion = z
  .string()
  .refine((text) => parseDecimal(text).ok, 'a decimal string in the major unit, at most nine decimals')

export const currencyCode = z.string().regex(/^[A-Z]{3}$/, 'an ISO 4217 code such as USD')

export const routeSchema = z.strictObject({
  name,
  provider: name,
  upstreamModel: name,
  balanceClass: z.enum(BALANCE_CLASSES),
  currency: currencyCode,
  /** Prompt and answer together, in tokens. */
  contextTokens: z.int().positive(),
  maxOutputTokens: z.int().positive(),
  /** From sending to the last byte, in milliseconds. An activity has nine minutes for an attempt and its settlement. */
  timeoutMs: z.int().min(100).max(480_000),
})

export const priceSchema = z.strictObject({
  provider: name,
  upstreamModel: name,
  currency: currencyCode,
  input: pricePerMillion,
  cachedInput: pricePerMillion.optional(),
  output: pricePerMillion,
  /** Per call, in the major unit. */
  perCall: pricePerMillion.optional(),
})

export const catalogModelSchema = z.strictObject({ name, routes: z.array(routeSchema).min(1).max(16) })

/** The whole catalog: validated as one document, kept in immutable versions. */
export const catalogSchema = z
  .strictObject({ models: z.array(catalogModelSchema).min(1).max(500), prices: z.array(priceSchema).max(5000) })
  .superRefine((catalog, context) => {
    const seen = new Set<string>()
    for (const model of catalog.models) {
      const names = [model.name, ...model.routes.map((route) => `${model.name} › ${route.name}`)]
      for (const each of names) {
        if (seen.has(each)) context.addIssue({ code: 'custom', message: `${each} stands twice` })
        seen.add(each)
      }
    }
  })

export type Route = z.infer<typeof routeSchema>
export type CatalogModel = z.infer<typeof catalogModelSchema>
export type Catalog = z.infer<typeof catalogSchema>
export type CatalogPrice = z.infer<typeof priceSchema>
