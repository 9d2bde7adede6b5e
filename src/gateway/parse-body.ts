import type { z } from 'zod'
import { Refusal } from './refusal.ts'

/** Most faults that one answer names. */
const MOST_FAULTS = 20

/** The body of a request. @throws Refusal that names everything that is wrong with it */
export function parseBody<Schema extends z.ZodType>(schema: Schema, body: unknown): z.output<Schema> {
  const parsed = schema.safeParse(body)
  if (parsed.success) return parsed.data
  const issues = parsed.error.issues.slice(0, MOST_FAULTS)
  const faults = issues.map(({ path, message }) => `${path.join('.') || 'body'}: ${message}`)
  throw new Refusal('invalid_request', faults.join('; '), { param: issues[0]?.path.join('.') ?? 'body' })
}
