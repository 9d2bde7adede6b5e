import { NO_USAGE } from '#domain/pricing.ts'
import { z } from 'zod'
import { startClock } from './attempt-clock.ts'
import { believableUsage, MAX_REPORTED_TOKENS } from './believable-usage.ts'
import { parseJson } from './json-text.ts'
import { UpstreamError } from './problem.ts'
import type { LookedUp } from './provider.ts'
import { askUpstream, type Upstream } from './upstream.ts'

/** Whoever asks has other things to do. */
const TIMEOUT_MS = 10_000

const count = z.int().min(0).max(MAX_REPORTED_TOKENS)

/** Counts by the upstream's own tokeniser: they are what is billed. Null until the generation is accounted for. */
const generationSchema = z.object({
  data: z.object({
    native_tokens_prompt: count.nullish(),
    native_tokens_completion: count.nullish(),
    native_tokens_reasoning: count.nullish(),
    native_tokens_cached: count.nullish(),
    num_media_prompt: count.nullish(),
  }),
})

/** Asks OpenRouter what became of a generation: `GET /generation?id=…`, which knows of aborted ones too. */
export async function lookUpGeneration(upstream: Upstream, id: string, signal: AbortSignal): Promise<LookedUp> {
  const clock = startClock({ signal, timeoutMs: TIMEOUT_MS })
  try {
    const { signal: ended } = clock.controller
    const answer = await askUpstream(upstream, { path: '/generation', query: { id }, signal: ended })
    return usageOf(parseJson(await answer.body.text()))
  } catch (error) {
    return { kind: isRefused(error) ? 'unknown' : 'not_yet' }
  } finally {
    clock.stop()
  }
}

function usageOf(body: unknown): LookedUp {
  const parsed = generationSchema.safeParse(body)
  if (!parsed.success) return { kind: 'unknown' }
  const { data } = parsed.data
  if (data.native_tokens_prompt == null || data.native_tokens_completion == null) return { kind: 'not_yet' }
  const reasoning = data.native_tokens_reasoning ?? 0
  const completion = data.native_tokens_completion
  const usage = believableUsage(
    {
      ...NO_USAGE,
      input: data.native_tokens_prompt,
      cachedInput: data.native_tokens_cached ?? 0,
      output: reasoning > completion ? completion + reasoning : completion,
      reasoning,
      images: data.num_media_prompt ?? 0,
    },
    { prompt: 0, answer: 0 },
  )
  return usage ? { kind: 'found', usage } : { kind: 'unknown' }
}

/**
 * What no later question would change. A 404 is a generation that is not written down yet; 401, 402 and 403 are said of a key,
 * which operators change while this process runs.
 */
const REFUSALS: ReadonlySet<number> = new Set([400, 405, 422])

function isRefused(error: unknown): boolean {
  return error instanceof UpstreamError && error.problem.status !== null && REFUSALS.has(error.problem.status)
}
