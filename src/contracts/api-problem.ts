import { z } from 'zod'
import { PROBLEMS, type ProblemCode } from './codes.ts'

export const PROBLEM_TYPE = 'application/problem+json'

/** RFC 9457. Further members depend on the code, such as `needed` and `free` of `wallet_short`. */
export const problemSchema = z
  .looseObject({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.enum(Object.keys(PROBLEMS)),
    remedy: z.string().optional().describe('What to do about it.'),
    errors: z
      .array(z.object({ path: z.string(), message: z.string() }))
      .optional()
      .describe('Everything that is wrong with the request, not only the first.'),
  })
  .meta({ id: 'Problem' })

export type ProblemBody = z.infer<typeof problemSchema>

/** The identifier of a problem type: a name, not an address. */
export function problemType(code: ProblemCode): string {
  return `urn:purser:problem:${code}`
}
