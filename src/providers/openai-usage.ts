import { NO_USAGE, type Usage } from '#domain/pricing.ts'
import { z } from 'zod'
import { MAX_REPORTED_TOKENS } from './believable-usage.ts'

const count = z.int().min(0).max(MAX_REPORTED_TOKENS)

/** What the dialects of OpenAI's API report. A field of a wrong type makes it no report. */
const reportSchema = z.object({
  prompt_tokens: count,
  completion_tokens: count,
  total_tokens: count.nullish(),
  prompt_tokens_details: z
    .object({
      cached_tokens: count.nullish(),
      /** OpenRouter, and LiteLLM's proxy. */
      cache_write_tokens: count.nullish(),
      cache_creation_tokens: count.nullish(),
    })
    .nullish(),
  completion_tokens_details: z.object({ reasoning_tokens: count.nullish() }).nullish(),
  /** DeepSeek. */
  prompt_cache_hit_tokens: count.nullish(),
  /** Moonshot. */
  cached_tokens: count.nullish(),
  /** Perplexity. */
  reasoning_tokens: count.nullish(),
  num_search_queries: count.nullish(),
  /** OpenRouter. */
  server_tool_use: z.object({ web_search_requests: count.nullish() }).nullish(),
})

type Report = z.infer<typeof reportSchema>

/** A chat completion's `usage`, or null where it is no report. */
export function chatUsageOf(reported: unknown): Usage | null {
  const parsed = reportSchema.safeParse(reported)
  if (!parsed.success) return null
  const report = parsed.data
  const { prompt_tokens_details: prompt } = report
  const reasoning = report.completion_tokens_details?.reasoning_tokens ?? report.reasoning_tokens ?? 0
  const searches = report.server_tool_use?.web_search_requests ?? report.num_search_queries ?? 0
  return {
    ...NO_USAGE,
    input: report.prompt_tokens,
    cachedInput: prompt?.cached_tokens ?? report.prompt_cache_hit_tokens ?? report.cached_tokens ?? 0,
    cacheWrite: prompt?.cache_write_tokens ?? prompt?.cache_creation_tokens ?? 0,
    output: outputOf(report, reasoning),
    reasoning,
    toolUses: searches > 0 ? { web_search: searches } : {},
  }
}

/**
 * All that was generated. OpenAI counts reasoning among the completion's tokens; xAI beside them, and Gemini only in the
 * total: what a total has beyond prompt and completion was generated too, and so was reasoning that exceeds the whole.
 */
function outputOf(report: Report, reasoning: number): number {
  const { prompt_tokens: input, completion_tokens: completion, total_tokens: total } = report
  const beside = reasoning > completion ? completion + reasoning : completion
  return Math.max(beside, (total ?? 0) - input)
}

const embedReportSchema = z.object({ prompt_tokens: count })

export function embedUsageOf(reported: unknown): Usage | null {
  const parsed = embedReportSchema.safeParse(reported)
  return parsed.success ? { ...NO_USAGE, input: parsed.data.prompt_tokens } : null
}
