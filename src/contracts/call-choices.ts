import { z } from 'zod'

/** What to do when the worst case of a call is more than there is money for. */
export const tightSchema = z
  .discriminatedUnion('policy', [
    z.strictObject({ policy: z.literal('refuse') }),
    z.strictObject({
      policy: z.literal('clamp'),
      floorTokens: z.int().min(1).max(1_000_000).describe('Fewer output tokens than these are not asked for.'),
      parallelism: z
        .int()
        .min(1)
        .max(1_000)
        .default(1)
        .describe('How many calls share the free money at once: each takes one part of so many at most.'),
    }),
  ])
  .meta({ id: 'Tight' })

/** Whether calls may be answered with stored answers of the project to the same request. */
export const reuseSchema = z
  .strictObject({ maxAgeSeconds: z.int().min(1).max(31_536_000).describe('Older answers are not used again.') })
  .meta({ id: 'Reuse' })

export type Tight = z.infer<typeof tightSchema>
