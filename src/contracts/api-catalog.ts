import { z } from 'zod'
import { amountSchema } from './api-money.ts'
import { nextCursorSchema } from './api-page.ts'
import { capabilitiesSchema, catalogModelSchema, catalogShape } from './catalog.ts'
import { BALANCE_CLASSES } from './names.ts'

const tokenPricesSchema = z.object({
  inputPerMillionTokens: amountSchema,
  cachedInputPerMillionTokens: amountSchema,
  cacheWritePerMillionTokens: amountSchema,
  outputPerMillionTokens: amountSchema,
  reasoningPerMillionTokens: amountSchema.describe('Hidden reasoning, which is part of the output.'),
})

export const routePriceSchema = tokenPricesSchema.extend({
  perCall: amountSchema,
  perImage: amountSchema,
  toolFees: z.record(z.string(), amountSchema).describe("For each use of a provider's own tool, by its name."),
  tiers: z
    .array(tokenPricesSchema.extend({ aboveInputTokens: z.int() }))
    .describe('Prices of all tokens of a request whose prompt has more tokens than that.'),
})

export const modelSchema = z
  .object({
    name: z.string(),
    kind: catalogModelSchema.shape.kind,
    strategy: catalogModelSchema.shape.strategy,
    routes: z.array(
      z.object({
        name: z.string(),
        provider: z.string(),
        upstreamModel: z.string(),
        balanceClass: z.enum(BALANCE_CLASSES),
        currency: z.string(),
        contextTokens: z.int(),
        maxOutputTokens: z.int(),
        capabilities: capabilitiesSchema,
        weight: z.int().describe('Its share among the routes of a weighted model.'),
        price: routePriceSchema.nullable().describe('`null`: no price, no call.'),
      }),
    ),
  })
  .meta({ id: 'Model' })

export const modelListSchema = z
  .object({ catalogVersion: z.int(), models: z.array(modelSchema) })
  .meta({ id: 'Models' })

const versionFacts = { version: z.int(), createdAt: z.iso.datetime() }

export const catalogVersionSchema = z.object({ ...versionFacts, catalog: catalogShape }).meta({ id: 'CatalogVersion' })

export const catalogVersionListSchema = z.object({
  versions: z.array(z.object({ ...versionFacts, models: z.int(), prices: z.int() })),
  nextCursor: nextCursorSchema,
})

export const catalogImportSchema = z
  .object({
    version: z.int().describe('In force now.'),
    warnings: z
      .array(z.object({ path: z.string(), message: z.string() }))
      .describe('What may be meant, and probably is not.'),
  })
  .meta({ id: 'CatalogImport' })

export const agentListSchema = z
  .object({
    agents: z.array(
      z.object({
        name: z.string(),
        description: z.string(),
        input: z.record(z.string(), z.unknown()).describe('JSON Schema of the input of a run.'),
      }),
    ),
  })
  .meta({ id: 'Agents' })

export type CatalogVersionView = z.infer<typeof catalogVersionSchema>
export type ModelList = z.infer<typeof modelListSchema>
