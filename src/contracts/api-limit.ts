import { z } from 'zod'
import { amountOrZeroSchema, amountSchema } from './api-money.ts'
import { nextCursorSchema, pageQuerySchema, periodQuery, versionSchema } from './api-page.ts'
import { LIMIT_MEASURES, LIMIT_PERIODS, LIMIT_SCOPES } from './names.ts'
import { thresholdsSchema } from './run-options.ts'
import { storableText } from './storable-text.ts'

/** As for money: far beyond any real one, and exact in JSON. */
const MAX_COUNT = 1_000_000_000_000_000

const moment = z.iso.datetime()
const count = z.int().min(0).max(MAX_COUNT)

const step = storableText
  .regex(/^[^/]+(\/[^/]+)*$/, 'is not the beginning of a path: parts between single slashes')
  .max(200)
  .describe('With the scope `step`: it binds the calls whose path is this, or begins with this and a slash.')

const thresholds = thresholdsSchema.describe(
  'Percentages of the cap. When so much is spent in a window, each webhook of the project with the topic `threshold` is ' +
    'told once. Not for an organisation.',
)

const common = {
  scope: z.enum(LIMIT_SCOPES),
  subjectId: z
    .string()
    .optional()
    .describe('The project, key or run that it binds; of a step, that whose calls count. Not for an organisation.'),
  step: step.optional(),
  period: z.enum(LIMIT_PERIODS).describe('A life, or a window of the clock and the calendar; weeks begin on Monday.'),
  timeZone: z.string().min(1).max(100).default('UTC').describe('Where days begin: a name such as `Europe/Berlin`.'),
  thresholds: thresholds.default([]),
}

const limitShape = z.discriminatedUnion('measure', [
  z.strictObject({ ...common, measure: z.literal('money'), cap: amountOrZeroSchema }),
  z.strictObject({ ...common, measure: z.literal('tokens'), cap: count }),
  z.strictObject({ ...common, measure: z.literal('calls'), cap: count }),
])

export const limitRequestSchema = limitShape.superRefine((limit, context) => {
  const add = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message })
  if (limit.scope === 'step' && limit.step === undefined) add('step', 'is missing: the scope is `step`')
  if (limit.scope !== 'step' && limit.step !== undefined) add('step', 'goes with the scope `step` only')
  if (limit.scope === 'organisation' && limit.subjectId !== undefined)
    add('subjectId', 'is the organisation of the key')
  if (limit.scope !== 'organisation' && limit.subjectId === undefined) add('subjectId', 'is missing')
})

export const limitChangeSchema = z
  .strictObject({
    cap: z.union([amountOrZeroSchema, count]).optional(),
    thresholds: thresholds.optional(),
  })
  .refine(({ cap, thresholds: told }) => cap !== undefined || told !== undefined, {
    message: 'changes nothing: send a cap, thresholds, or both',
  })

export const limitQuerySchema = pageQuerySchema.extend({
  projectId: z.string().optional().describe('Only limits within this project.'),
  scope: z.enum(LIMIT_SCOPES).optional(),
  subjectId: z.uuid().optional().describe('Only limits on this project, key or run.'),
  ...periodQuery,
})

/** An amount of money, or a number of tokens or calls, as the limit measures. */
const quantity = z
  .union([amountSchema, z.int()])
  .meta({ id: 'Quantity', description: 'Money for the measure `money`, else a number.' })

export const limitSchema = z
  .object({
    id: z.uuid(),
    scope: z.enum(LIMIT_SCOPES),
    projectId: z.uuid().nullable().describe('`null` for a limit on the organisation.'),
    subjectId: z.uuid(),
    step: z.string().nullable(),
    measure: z.enum(LIMIT_MEASURES),
    period: z.enum(LIMIT_PERIODS),
    timeZone: z.string(),
    cap: quantity,
    thresholds: z.array(z.int()).describe('Percentages of the cap that webhooks are told of, once in each window.'),
    window: z
      .object({
        startsAt: moment,
        resetsAt: moment.nullable().describe('`null` for a life.'),
        spent: quantity,
        held: quantity.describe('The worst case of calls in flight.'),
        leased: quantity.describe('What envelopes may spend without asking, spent and held included.'),
        free: quantity.describe('cap − spent − held, at least zero: idle leases are recalled for who needs them.'),
      })
      .describe('The window of now.'),
    setBy: z.enum(['operator', 'project']),
    createdAt: moment,
    retiredAt: moment.nullable(),
    version: versionSchema,
  })
  .meta({ id: 'Limit' })

export const limitListSchema = z.object({ limits: z.array(limitSchema), nextCursor: nextCursorSchema })

export type LimitRequest = z.infer<typeof limitRequestSchema>
export type LimitChangeRequest = z.infer<typeof limitChangeSchema>
export type LimitCap = NonNullable<LimitChangeRequest['cap']>
export type LimitView = z.infer<typeof limitSchema>
