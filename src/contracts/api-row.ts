import { z } from 'zod'
import { amountSchema } from './api-money.ts'

const path = z
  .string()
  .max(200)
  .optional()
  .describe('Of the map, in a run that has several; its first one unless given.')

export const rowResultsQuerySchema = z.strictObject({ format: z.enum(['json', 'jsonl', 'csv']).default('json'), path })

export const rowCountsQuerySchema = z.strictObject({ path })

export const rowCountsSchema = z
  .object({ path: z.string(), rows: z.int(), answered: z.int(), failed: z.int() })
  .meta({ id: 'RowCounts' })

const rowResultSchema = z.object({
  row: z.int().describe('From 1.'),
  input: z.record(z.string(), z.unknown()),
  state: z.enum(['answered', 'failed', 'open']),
  answer: z.unknown().describe('Its text, or the object of the schema; null while there is none.'),
  error: z.object({ reason: z.string(), detail: z.string().nullable() }).nullable(),
  cost: z.array(amountSchema).describe('What its calls were charged, answered or not, in each currency.'),
})

export const rowResultsSchema = z
  .object({ runId: z.uuid(), path: z.string(), rows: z.array(rowResultSchema), end: z.literal(true) })
  .meta({ id: 'RowResults' })

export type RowResultView = z.infer<typeof rowResultSchema>
