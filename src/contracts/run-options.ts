import { z } from 'zod'
import { positiveAmountSchema } from './api-money.ts'
import { constraintsSchema } from './constraints.ts'
import { storableText } from './storable-text.ts'

const MAX_COUNT = 1_000_000_000_000
const count = z.int().min(1).max(MAX_COUNT)

/** What a run goes on with when its money ends: cheaper routes, one balance class, another model, or all of these. */
export const downgradeSchema = z
  .strictObject({
    model: z.string().min(1).max(100).optional().describe('The catalog model of its calls from then on.'),
    constraints: constraintsSchema
      .optional()
      .describe('What its calls may use from then on, in place of its constraints; those of its key stay.'),
    then: z.enum(['pause', 'cancel']).describe('What follows when that money ends too.'),
  })
  .refine(({ model, constraints }) => model !== undefined || constraints !== undefined, {
    message: 'changes nothing: give a model, constraints, or both',
  })
  .meta({ id: 'Downgrade' })

const stepLimitSchema = z
  .strictObject({
    step: storableText
      .regex(/^[a-z0-9][a-z0-9_-]*(\/[a-z0-9][a-z0-9_-]*)*$/, 'is not the beginning of a path, such as read')
      .max(100)
      .describe('It binds the calls whose path is this, or begins with this and a slash.'),
    money: positiveAmountSchema.optional(),
    tokens: count.optional(),
    calls: count.optional(),
  })
  .refine(({ money, tokens, calls }) => money !== undefined || tokens !== undefined || calls !== undefined, {
    message: 'limits nothing',
  })

/** Caps of a run besides its money. */
export const runLimitsSchema = z
  .strictObject({
    tokens: count.optional().describe('Input and output of all its calls and those of its children.'),
    calls: count.optional(),
    seconds: z
      .int()
      .min(1)
      .max(31_536_000)
      .optional()
      .describe('By the clock on the wall, from its start; pauses count.'),
    inputTokensPerCall: count
      .optional()
      .describe('A call with a longer prompt is refused: a context that grows is seen.'),
    steps: z.array(stepLimitSchema).min(1).max(50).optional(),
  })
  .meta({ id: 'RunLimits' })

const OF_HUNDRED = 'is not a percentage: a whole number from 1 to 100'

/** Percentages of what may be spent, of a pocket of a run or of a limit; each is told once, when so much is spent. */
export const thresholdsSchema = z
  .array(z.int(OF_HUNDRED).min(1, OF_HUNDRED).max(100, OF_HUNDRED))
  .max(20, 'has more than 20 percentages')
  .refine((list) => new Set(list).size === list.length, 'names a percentage twice')

export type RunLimits = z.infer<typeof runLimitsSchema>
