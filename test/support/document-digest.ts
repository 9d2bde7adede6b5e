import { createHash } from 'node:crypto'

/** Of a value as JSON, whatever the order of its members. */
export function digestOfJson(value: unknown): string {
  return digestOfText(JSON.stringify(value, (_key, each: unknown) => sorted(each)))
}

export function digestOfText(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function sorted(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1)))
}
