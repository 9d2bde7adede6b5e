import { z } from 'zod'

/** Passages as a stored tool payload holds them, to be written into a prompt. Whatever else stands beside them is the tool's. */
export const passagesSchema = z.object({
  passages: z.array(z.object({ id: z.string(), source: z.string(), title: z.string(), text: z.string() })),
})
