import { z } from 'zod'
import type { JsonSchema } from './agents.ts'

export type SchemaCheck =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly detail: string }

/** Most problems named of one value: the first ones tell what is wrong. */
const MAX_PROBLEMS = 5

/**
 * Checks a value against a JSON Schema, fills in its defaults, and names what does not fit with its path.
 *
 * @throws when the schema itself is none: a bug of the agent that declares it
 */
export function checkJsonSchema(schema: JsonSchema, value: unknown): SchemaCheck {
  const checked = z.fromJSONSchema(schema).safeParse(value)
  if (checked.success) return { ok: true, value: checked.data }
  const problems = checked.error.issues.slice(0, MAX_PROBLEMS).map((issue) => {
    const path = issue.path.join('.')
    return path === '' ? issue.message : `${path}: ${issue.message}`
  })
  return { ok: false, detail: problems.join('; ') }
}
