/**
 * JSON text for a JSON column; bigints become decimal strings. Postgres refuses NUL and lone surrogates in jsonb, and a
 * paid answer must not be lost for one: they become U+FFFD.
 */
export function json(value: unknown): string {
  return JSON.stringify(value ?? null, (_key, each: unknown) => {
    if (typeof each === 'bigint') return each.toString()
    return typeof each === 'string' ? each.toWellFormed().replaceAll('\0', '\uFFFD') : each
  })
}
