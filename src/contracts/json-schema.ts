import { z } from 'zod'
import type { JsonSchema } from './agents.ts'

export type SchemaCheck =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly detail: string }

/** Most problems named of one value: the first ones tell what is wrong. */
const MAX_PROBLEMS = 5
/** Most characters of one: names in a value are its writer's words, and what is said of it outlives it. */
const MAX_PROBLEM_LENGTH = 200

/**
 * Checks a value against a JSON Schema, fills in its defaults, and names what does not fit with its path.
 *
 * @throws when the schema itself is none: a bug of the agent that declares it
 */
export function checkJsonSchema(schema: JsonSchema, value: unknown): SchemaCheck {
  return jsonSchemaCheck(schema)(value)
}

/** The same for many values: the schema is read once. */
export function jsonSchemaCheck(schema: JsonSchema): (value: unknown) => SchemaCheck {
  const type = z.fromJSONSchema(schema)
  return (value) => {
    const checked = type.safeParse(value)
    if (checked.success) return { ok: true, value: checked.data }
    const problems = checked.error.issues.slice(0, MAX_PROBLEMS).map((issue) => {
      const path = issue.path.join('.')
      const problem = path === '' ? issue.message : `${path}: ${issue.message}`
      return problem.slice(0, MAX_PROBLEM_LENGTH).toWellFormed()
    })
    return { ok: false, detail: problems.join('; ') }
  }
}

/** Bytes of a schema that somebody else wrote. */
const MAX_SCHEMA_BYTES = 8_192
/** Whatever reads a schema recurses. */
const MAX_SCHEMA_DEPTH = 32
/** Expressions that a stranger wrote can keep a worker busy for hours, with one answer of thirty characters. */
const REFUSED_KEYWORDS: ReadonlySet<string> = new Set(['pattern', 'patternProperties', '$ref', '$dynamicRef'])

/** What is wrong with a JSON Schema of a customer's, which a worker is to check answers against; undefined when nothing is. */
export function foreignSchemaFault(schema: unknown): string | undefined {
  if (!isObject(schema)) return 'is no object'
  if (isDeeper(schema, MAX_SCHEMA_DEPTH)) return `is nested deeper than ${MAX_SCHEMA_DEPTH} levels`
  const text = JSON.stringify(schema)
  if (text.length > MAX_SCHEMA_BYTES) return `is larger than ${MAX_SCHEMA_BYTES} bytes`
  const refused = keywordsOf(schema).find((keyword) => REFUSED_KEYWORDS.has(keyword))
  if (refused !== undefined) return `uses ${refused}, which is not supported here`
  try {
    z.fromJSONSchema({ ...schema })
    return undefined
  } catch (error) {
    return `is no JSON Schema that can be checked: ${error instanceof Error ? error.message : String(error)}`
  }
}

/** Looks no further than that. */
function isDeeper(value: object, levels: number): boolean {
  return levels === 0 || Object.values(value).some((each: unknown) => isObject(each) && isDeeper(each, levels - 1))
}

/** Names of properties are no keywords; all that stands elsewhere may be one. */
function keywordsOf(schema: object): readonly string[] {
  return Object.entries(schema).flatMap(([keyword, value]: [string, unknown]) => {
    if (typeof value !== 'object' || value === null) return [keyword]
    const isNamed = keyword === 'properties' || keyword === '$defs' || keyword === 'definitions'
    const inner = isNamed ? Object.values(value).filter(isObject) : [value]
    return [keyword, ...inner.flatMap(keywordsOf)]
  })
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}
