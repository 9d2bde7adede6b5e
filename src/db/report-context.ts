import type { CallReport, Report } from '#contracts/report.ts'

/** Most points of the trend: a run may have any number of calls. */
const MOST_POINTS = 200

/**
 * How large the prompts of a run's calls were, in their order: a context that grows costs more with each call. Of the
 * attempts whose usage is known; null when there is none.
 */
export function contextOf(calls: readonly CallReport[]): Report['context'] {
  const sizes = calls.flatMap((call) => {
    const tokens = call.attempts.findLast((attempt) => attempt.tokens !== null)?.tokens
    return tokens ? [{ callId: call.id, path: call.path, inputTokens: tokens.input }] : []
  })
  const [first] = sizes
  const last = sizes.at(-1)
  if (!first || !last) return null
  const largest = sizes.reduce((most, each) => (each.inputTokens > most.inputTokens ? each : most))
  const every = Math.ceil(sizes.length / MOST_POINTS)
  return {
    calls: sizes.length,
    first: first.inputTokens,
    last: last.inputTokens,
    largest,
    trend: sizes.filter((_, index) => index % every === 0 || index === sizes.length - 1),
  }
}
