import { NO_USAGE, type Usage } from '#domain/pricing.ts'
import { z } from 'zod'
import { MAX_REPORTED_TOKENS } from './believable-usage.ts'
import { recordOf } from './untrusted.ts'

const count = z.int().min(0).max(MAX_REPORTED_TOKENS)

const reportSchema = z.object({
  /** What was neither read from the cache nor written to it. */
  input_tokens: count,
  cache_read_input_tokens: count.nullish(),
  cache_creation_input_tokens: count.nullish(),
  output_tokens: count,
  output_tokens_details: z.object({ thinking_tokens: count.nullish() }).nullish(),
  server_tool_use: z.object({ web_search_requests: count.nullish(), web_fetch_requests: count.nullish() }).nullish(),
})

/**
 * A message's usage. A stream tells it twice: at its start, where the output is a running count, and at its end, where
 * all that it names is the bill. Null where the end names none.
 */
export function messageUsageOf(last: unknown, first: unknown = null): Usage | null {
  const named = Object.entries(recordOf(last) ?? {}).filter(([, value]) => value !== null)
  const { output_tokens: _running, ...begun } = recordOf(first) ?? {}
  const parsed = reportSchema.safeParse({ ...begun, ...Object.fromEntries(named) })
  if (!parsed.success) return null
  const report = parsed.data
  const cachedInput = report.cache_read_input_tokens ?? 0
  const cacheWrite = report.cache_creation_input_tokens ?? 0
  const searches = report.server_tool_use?.web_search_requests ?? 0
  const fetches = report.server_tool_use?.web_fetch_requests ?? 0
  return {
    ...NO_USAGE,
    input: report.input_tokens + cachedInput + cacheWrite,
    cachedInput,
    cacheWrite,
    output: report.output_tokens,
    reasoning: report.output_tokens_details?.thinking_tokens ?? 0,
    toolUses: { ...(searches > 0 && { web_search: searches }), ...(fetches > 0 && { web_fetch: fetches }) },
  }
}
