import { OUTCOMES } from '#domain/policy.ts'
import { z } from 'zod'
import { amountSchema } from './api-money.ts'
import { filterText, nextCursorSchema, pageQuerySchema, periodQuery } from './api-page.ts'
import { transferSchema } from './api-run.ts'
import { BALANCE_CLASSES } from './names.ts'
import { callReportSchema, likelyRepeatsSchema } from './report.ts'

export const keyCallQuerySchema = pageQuerySchema.extend({
  state: z.enum(['open', 'answered']).optional(),
  model: filterText.optional(),
  ...periodQuery,
})

const chargedSchema = z.array(z.object({ balanceClass: z.enum(BALANCE_CLASSES), charged: amountSchema }))

export const keyCallSchema = callReportSchema
  .extend({
    at: z.iso.datetime(),
    idempotencyKey: z.string().nullable().describe('With which it was asked: sent again, it is the same call.'),
    repeats: z
      .uuid()
      .nullable()
      .describe(
        'The call before it with the same request, which ended, or began, less than a minute earlier, and which it likely ' +
          'repeats: neither came with an Idempotency-Key.',
      ),
    charged: chargedSchema,
  })
  .meta({ id: 'KeyCall' })

export const keyCallListSchema = z.object({
  calls: z.array(keyCallSchema),
  likelyRepeats: likelyRepeatsSchema,
  nextCursor: nextCursorSchema,
})

export const callQuerySchema = pageQuerySchema.extend({
  projectId: z.string().optional().describe('Required of an operator key; a project key lists its own project.'),
  runId: z.uuid().optional(),
  keyId: z.uuid().optional().describe('Who asked.'),
  model: filterText.optional().describe('The catalog model that was asked for.'),
  state: z.enum(['open', 'answered']).optional(),
  route: filterText.optional(),
  outcome: z.enum(OUTCOMES).optional(),
  balanceClass: z.enum(BALANCE_CLASSES).optional(),
  ...periodQuery,
})

const callEntrySchema = callReportSchema
  .extend({
    at: z.iso.datetime(),
    runId: z.uuid().nullable().describe('`null`: of the envelope of its key.'),
    keyId: z.uuid(),
    charged: chargedSchema,
  })
  .meta({ id: 'CallEntry' })

export const callListSchema = z.object({ calls: z.array(callEntrySchema), nextCursor: nextCursorSchema })

export const callLedgerSchema = z.object({ transfers: z.array(transferSchema) })

export type CallEntry = z.infer<typeof callEntrySchema>
export type KeyCallView = z.infer<typeof keyCallSchema>
export type KeyCallList = z.infer<typeof keyCallListSchema>
