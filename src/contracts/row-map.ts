import { z } from 'zod'

/** What is asked about each row, as it stands in the database: written by the kit, read by the worker. */
export const rowAskSchema = z.object({
  model: z.string(),
  messages: z.array(
    z.object({
      role: z.enum(['system', 'user', 'assistant']),
      parts: z.array(z.union([z.string(), z.object({ ref: z.string() })])),
    }),
  ),
  maxTokens: z.int(),
  schema: z.object({ name: z.string(), schema: z.record(z.string(), z.unknown()) }).optional(),
})

export type RowAsk = z.infer<typeof rowAskSchema>
