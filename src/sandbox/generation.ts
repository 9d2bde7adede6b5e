import type { SandboxContext } from './context.ts'
import type { LoggedRequest } from './log.ts'

/** What the ids of answers begin with. */
const ID_PREFIX = /^(?:chatcmpl-|msg_|embd-)/u

/**
 * What OpenRouter's `GET /api/v1/generation?id=` tells of a request that has ended, however it ended; null before it
 * is known, and for ids of requests that never began. JSON text, as the cost is an exact number of nine decimals.
 */
export function describeGeneration({ log, generations }: SandboxContext, id: string): string | null {
  const seq = Number(/-(\d{1,15})$/u.exec(id)?.[1] ?? Number.NaN)
  const request = log.get(seq)
  if (request === null || !request.begun || request.endedAt === undefined) return null
  if (id.replace(ID_PREFIX, '') !== request.id) return null
  if (Date.now() < Date.parse(request.endedAt) + generations.delayMs) return null
  return toText(id, request, request.endedAt)
}

function toText(id: string, request: LoggedRequest, endedAt: string): string {
  const { usage } = request
  const data = {
    id,
    upstream_id: id,
    model: request.model,
    created_at: request.at,
    provider_name: 'Sandbox',
    streamed: request.streamed,
    cancelled: !request.finished,
    finish_reason: request.finished ? request.finishReason : null,
    native_finish_reason: request.finished ? request.finishReason : null,
    generation_time: Date.parse(endedAt) - Date.parse(request.at),
    tokens_prompt: usage.promptTokens,
    tokens_completion: usage.completionTokens,
    native_tokens_prompt: usage.promptTokens,
    native_tokens_completion: usage.completionTokens,
    native_tokens_reasoning: usage.reasoningTokens,
    native_tokens_cached: usage.cachedTokens,
    num_media_prompt: usage.images,
    num_search_results: null,
    is_byok: false,
  }
  // Exact decimals straight into the text: a JavaScript number would round them.
  const cost = `"usage":${request.billed},"total_cost":${request.billed}`
  return `{"data":{${JSON.stringify(data).slice(1, -1)},${cost}}}`
}
