import { z } from 'zod'
import { amountSchema } from './api-money.ts'
import { BALANCE_CLASSES } from './names.ts'

const routePriceSchema = z.object({
  inputPerMillionTokens: amountSchema,
  cachedInputPerMillionTokens: amountSchema,
  outputPerMillionTokens: amountSchema,
  perCall: amountSchema,
})

export const modelListSchema = z
  .object({
    catalogVersion: z.int(),
    models: z.array(
      z.object({
        name: z.string(),
        routes: z.array(
          z.object({
            name: z.string(),
            provider: z.string(),
            upstreamModel: z.string(),
            balanceClass: z.enum(BALANCE_CLASSES),
            currency: z.string(),
            contextTokens: z.int(),
            maxOutputTokens: z.int(),
            price: routePriceSchema.nullable().describe('`null`: no price, no call.'),
          }),
        ),
      }),
    ),
  })
  .meta({ id: 'Models' })

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

export type ModelList = z.infer<typeof modelListSchema>
