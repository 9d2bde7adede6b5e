import { z } from 'zod'
import { amountSchema } from './api-money.ts'
import { routePriceSchema } from './api-catalog.ts'
import { BALANCE_CLASSES } from './names.ts'

const rangeSchema = z.object({ least: z.int(), most: z.int() })
const money = { balanceClass: z.enum(BALANCE_CLASSES), currency: z.string() }

/** What a run would do and cost. */
export const runPlanSchema = z
  .object({
    agent: z.string(),
    model: z.string(),
    input: z.unknown().describe("With the defaults of the agent's schema filled in."),
    routes: z
      .array(
        z.object({
          model: z.string(),
          route: z.string(),
          provider: z.string(),
          upstreamModel: z.string(),
          ...money,
          price: routePriceSchema.nullable(),
          skipped: z.string().nullable().describe('Why it would not serve.'),
        }),
      )
      .describe(
        'Of each model of the plan: those that would serve, in the order in which they are tried, then the others.',
      ),
    steps: z
      .array(
        z.object({
          path: z.string(),
          model: z.string(),
          calls: rangeSchema,
          inputTokens: rangeSchema.describe('Of one call.'),
          outputTokens: rangeSchema,
        }),
      )
      .nullable()
      .describe('`null`: the agent does not say.'),
    estimate: z
      .array(z.object({ ...money, low: amountSchema, high: amountSchema }))
      .describe(
        'For each money that may pay: what the run costs when this money alone pays. Low: least calls and tokens on the cheapest route; high: most on the dearest.',
      ),
    history: z
      .object({ runs: z.int(), costs: z.array(z.object({ ...money, p10: amountSchema, p90: amountSchema })) })
      .nullable()
      .describe('What the last completed runs of the same agent and model cost; `null` when there are less than five.'),
    coversHigh: z
      .boolean()
      .nullable()
      .describe('Whether one pocket of the envelope pays the high end of the estimate by itself, without its reserve.'),
  })
  .meta({ id: 'RunPlan' })

export type RunPlan = z.infer<typeof runPlanSchema>
