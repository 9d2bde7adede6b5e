import type { z } from 'zod'
import { Refusal } from './refusal.ts'

/** Most faults that one answer names. */
const MOST_FAULTS = 20

/** The body of a request. @throws Refusal that names everything that is wrong with it */
export function parseBody<Schema extends z.ZodType>(schema: Schema, body: unknown): z.output<Schema> {
  const parsed = schema.safeParse(body, { error: inWords })
  if (parsed.success) return parsed.data
  const faults = parsed.error.issues.flatMap(faultsOf).slice(0, MOST_FAULTS)
  const text = faults.map(({ param, message }) => `${param || 'body'}: ${message}`).join('; ')
  const param = faults[0]?.param
  const code = faults.every(({ isUnknown }) => isUnknown) ? 'unsupported_parameter' : 'invalid_request'
  throw new Refusal(code, text, param ? { param } : {})
}

interface Fault {
  readonly param: string
  readonly message: string
  /** Nothing is wrong with it, but that it is not known here. */
  readonly isUnknown: boolean
}

function faultsOf(issue: z.core.$ZodIssue): readonly Fault[] {
  const { path, message } = issue
  if (issue.code !== 'unrecognized_keys') return [{ param: path.join('.'), message, isUnknown: false }]
  return issue.keys.map((key) => ({
    param: [...path, key].join('.'),
    message: 'is not supported here',
    isUnknown: true,
  }))
}

/** What is not there is missing; anything else is said as its schema says it. */
function inWords({ code, input }: z.core.$ZodRawIssue): string | undefined {
  return code === 'invalid_type' && input === undefined ? 'is missing' : undefined
}
