import { z } from 'zod'
import { amountSchema } from './api-money.ts'
import { utcMomentSchema } from './instant.ts'

const MARGIN_GROUPS = ['project', 'model', 'route', 'month'] as const

const groups = z
  .string()
  .transform((text) => text.split(','))
  .pipe(z.array(z.enum(MARGIN_GROUPS)).max(MARGIN_GROUPS.length))

export const marginsQuerySchema = z.strictObject({
  from: utcMomentSchema.optional().describe('Left out: the first of this month, in UTC.'),
  to: utcMomentSchema.optional().describe('Up to, and without; left out: now.'),
  project: z.uuid().optional(),
  by: groups.default(['route']).describe('Some of project, model, route and month, with commas between them.'),
})

export const marginsSchema = z
  .object({
    from: z.iso.datetime(),
    to: z.iso.datetime(),
    by: z.array(z.enum(MARGIN_GROUPS)),
    margins: z.array(
      z.object({
        projectId: z.uuid().nullable().describe('`null`, as all that follow: lines are not told apart by it.'),
        model: z.string().nullable().describe('The catalog model.'),
        route: z.string().nullable(),
        provider: z.string().nullable(),
        upstreamModel: z.string().nullable(),
        month: z.string().nullable(),
        attempts: z.int().describe('Charged first in the period.'),
        sell: amountSchema.describe('What wallets paid.'),
        cost: amountSchema.describe('What providers bill, in the currency that was paid: sell less margin.'),
        margin: amountSchema,
        billed: z.array(amountSchema).describe('The part of the cost that providers bill in other currencies.'),
      }),
    ),
  })
  .meta({ id: 'Margins' })
