/** JSON text for a JSON column; bigints become decimal strings. */
export function json(value: unknown): string {
  return JSON.stringify(value ?? null, (_key, each: unknown) => (typeof each === 'bigint' ? each.toString() : each))
}
