import type { z } from 'zod'
import { Refusal } from './refusal.ts'

/** Most faults that one answer names. */
const MOST_FAULTS = 20

/** The body of a request. @throws Refusal that names everything that is wrong with it */
export function parseBody<Schema extends z.ZodType>(schema: Schema, body: unknown): z.output<Schema> {
  const parsed = schema.safeParse(body, { error: inWords })
  if (parsed.success) return parsed.data
  const faults = parsed.error.issues.slice(0, MOST_FAULTS).map(({ path, message }) => {
    return { param: path.join('.'), message }
  })
  const text = faults.map(({ param, message }) => `${param || 'body'}: ${message}`).join('; ')
  const param = faults[0]?.param
  throw new Refusal('invalid_request', text, param ? { param } : {})
}

/** What is not there is missing; anything else is said as its schema says it. */
function inWords({ code, input }: z.core.$ZodRawIssue): string | undefined {
  return code === 'invalid_type' && input === undefined ? 'is missing' : undefined
}
