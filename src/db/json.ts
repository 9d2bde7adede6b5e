/** What JSON.stringify writes for U+0000 and for half of a character; also for a text that says so, which does no harm. */
const UNSTORABLE = /\\u(?:0000|d[89a-f])/

/**
 * JSON text for a JSON column; bigints become decimal strings. Postgres refuses NUL and lone surrogates in jsonb, in names
 * as well as in texts, and a paid answer must not be lost for one: they become U+FFFD.
 */
export function json(value: unknown): string {
  const text = JSON.stringify(value ?? null, (_key, each: unknown) =>
    typeof each === 'bigint' ? each.toString() : each,
  )
  return UNSTORABLE.test(text) ? JSON.stringify(JSON.parse(text), (_key, each: unknown) => storable(each)) : text
}

function storable(value: unknown): unknown {
  if (typeof value === 'string') return storableText(value)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [storableText(name), each]))
}

/** The same for a column of text, of what somebody else may have written. */
export function storableText(text: string): string {
  return text.toWellFormed().replaceAll('\0', '\uFFFD')
}
