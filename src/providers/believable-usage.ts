import type { Usage } from '#domain/pricing.ts'

/** More tokens than any context has: a report beyond it is no report. */
export const MAX_REPORTED_TOKENS = 100_000_000

/**
 * No vocabulary in use has a token of more than some 128 characters. A count that would need tokens of four times that
 * is a constant or a running count, not what was used.
 */
const MAX_CHARACTERS_PER_TOKEN = 512

/** What we saw ourselves go out and come in, in characters of text. */
export interface SeenText {
  readonly prompt: number
  readonly answer: number
}

/**
 * A report of usage as it is, or null where it cannot be true. Wrong usage must never lower a charge silently: without a
 * report the attempt is estimated, to the provider's side.
 */
export function believableUsage(usage: Usage, seen: SeenText): Usage | null {
  const { input, cachedInput, cacheWrite, output, reasoning } = usage
  if (input === 0 || input > MAX_REPORTED_TOKENS || output > MAX_REPORTED_TOKENS) return null
  if (cachedInput + cacheWrite > input || reasoning > output) return null
  if (input * MAX_CHARACTERS_PER_TOKEN < seen.prompt || output * MAX_CHARACTERS_PER_TOKEN < seen.answer) return null
  return usage
}
