import { CLIENT_REQUEST_ID_HEADER } from '#contracts/names.ts'
import OpenAI, { APIConnectionError, APIError, APIUserAbortError } from 'openai'
import type { ChatMessage } from '#contracts/chat.ts'
import type {
  ChatCompletionChunk,
  ChatCompletionCreateParamsStreaming,
  ChatCompletionMessageParam,
} from 'openai/resources/chat/completions'
import { z } from 'zod'
import { NO_USAGE, type Usage } from '#domain/pricing.ts'
import { retryAfterMs } from './retry-after.ts'
import {
  NOTHING_RECEIVED,
  type Provider,
  type ProviderChatRequest,
  type ProviderResult,
  type Received,
} from './provider.ts'

export interface OpenAiCompatibleOptions {
  readonly name: string
  readonly baseUrl: string
  readonly apiKey: string
  readonly nowMs: () => number
}

type Failure = Extract<ProviderResult, { sent: boolean }>

/** More tokens than any context has: a report beyond it is no report. */
const MAX_TOKENS = 100_000_000
/** Longest request id of a provider that is kept, in characters. */
const MAX_ID = 200

const usageSchema = z.object({
  prompt_tokens: z.int().min(0).max(MAX_TOKENS),
  completion_tokens: z.int().min(0).max(MAX_TOKENS),
  prompt_tokens_details: z.object({ cached_tokens: z.int().min(0).nullish() }).nullish(),
})

/** Longest detail of a provider's error that is kept, in characters. */
const MAX_DETAIL = 500

/** OpenAI, and everything that speaks its chat completions. Always streams, so that an abort knows what it received. */
export function createOpenAiCompatible(options: OpenAiCompatibleOptions): Provider {
  // Silent: the client would print what a provider sent, and with it parts of answers, to our log.
  const client = new OpenAI({ baseURL: options.baseUrl, apiKey: options.apiKey, maxRetries: 0, logLevel: 'off' })

  async function chat(request: ProviderChatRequest): Promise<ProviderResult> {
    if (request.signal.aborted) return { ...failure('aborted', 'aborted before sending'), sent: false }
    const timeout = AbortSignal.timeout(request.timeoutMs)
    const collected = collector()
    try {
      const stream = await client.chat.completions.create(bodyOf(request), {
        signal: AbortSignal.any([request.signal, timeout]),
        headers: { [CLIENT_REQUEST_ID_HEADER]: request.clientRequestId },
        timeout: request.timeoutMs,
      })
      for await (const chunk of stream) collected.add(chunk)
    } catch (error) {
      return { ...classify(error, { request, timeout, nowMs: options.nowMs }), received: collected.received() }
    }
    if (request.signal.aborted)
      return { ...failure('aborted', 'aborted while streaming'), received: collected.received() }
    if (timeout.aborted) return { ...failure('timeout', 'no answer in time'), received: collected.received() }
    return judge(collected.received(), collected.chunks())
  }

  return { name: options.name, chat }
}

function bodyOf(request: ProviderChatRequest): ChatCompletionCreateParamsStreaming {
  return {
    model: request.upstreamModel,
    messages: request.body.messages.map(toMessage),
    max_tokens: request.maxOutputTokens,
    stream: true,
    stream_options: { include_usage: true },
    ...(request.body.schema && {
      response_format: {
        type: 'json_schema',
        json_schema: { name: request.body.schema.name, schema: { ...request.body.schema.schema }, strict: true },
      },
    }),
  }
}

function toMessage(message: ChatMessage): ChatCompletionMessageParam {
  if (typeof message.content !== 'string') throw new Error('images are not sent yet')
  if (message.role === 'tool') return { role: 'tool', tool_call_id: message.toolCallId, content: message.content }
  return { role: message.role, content: message.content }
}

function collector() {
  let text = ''
  let finishReason: string | null = null
  let usage: Usage | null = null
  let providerRequestId: string | null = null
  let valid = 0
  return {
    add(chunk: ChatCompletionChunk): void {
      if (!Array.isArray(chunk.choices)) return
      valid += 1
      if (typeof chunk.id === 'string') providerRequestId ??= chunk.id.slice(0, MAX_ID)
      const [choice] = chunk.choices
      if (typeof choice?.delta?.content === 'string') text += choice.delta.content
      if (typeof choice?.finish_reason === 'string') finishReason = choice.finish_reason
      usage = usageOf(chunk.usage) ?? usage
    },
    received: (): Received => ({ ...NOTHING_RECEIVED, text, finishReason, usage, providerRequestId }),
    chunks: () => valid,
  }
}

function usageOf(reported: unknown): Usage | null {
  const parsed = usageSchema.safeParse(reported)
  if (!parsed.success) return null
  const input = parsed.data.prompt_tokens
  const cached = Math.min(input, parsed.data.prompt_tokens_details?.cached_tokens ?? 0)
  return { ...NO_USAGE, input, cachedInput: cached, output: parsed.data.completion_tokens }
}

/** A stream that ended without an error is not yet an answer. */
function judge(received: Received, chunks: number): ProviderResult {
  if (chunks === 0) return { ...failure('malformed_answer', 'the answer is not a chat completion'), received }
  if (received.finishReason === null)
    return { ...failure('cut_stream', 'the stream ended before the answer did'), received }
  if (received.finishReason === 'content_filter')
    return { ...failure('content_filter', 'the provider filtered the answer'), received }
  return { outcome: 'answered', received }
}

function classify(
  error: unknown,
  context: { readonly request: ProviderChatRequest; readonly timeout: AbortSignal; readonly nowMs: () => number },
): Failure {
  if (context.request.signal.aborted) return failure('aborted', 'aborted while the request was open')
  if (context.timeout.aborted) return failure('timeout', `no answer within ${context.request.timeoutMs} ms`)
  if (error instanceof APIUserAbortError) return failure('aborted', error.message)
  if (error instanceof APIConnectionError) return connectionFailure(error)
  if (error instanceof APIError && typeof error.status === 'number')
    return statusFailure(error, error.status, context.nowMs())
  if (error instanceof SyntaxError) return failure('malformed_answer', 'the answer is not JSON')
  const text = error instanceof Error ? error.message : String(error)
  return failure('cut_stream', text)
}

/** These say that no connection was made, so nothing was executed. */
const BEFORE_SEND = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
])

function connectionFailure(error: APIConnectionError): Failure {
  const codes = causeCodes(error)
  const detail = `${error.message} ${codes.join(' ')}`.trim()
  if (codes.some((code) => BEFORE_SEND.has(code))) return { ...failure('network_before_send', detail), sent: false }
  return failure('network_after_send', detail)
}

function causeCodes(error: unknown, depth = 0): string[] {
  if (!(error instanceof Error) || depth > 5) return []
  const own = 'code' in error && typeof error.code === 'string' ? [error.code] : []
  const nested = error instanceof AggregateError ? error.errors.flatMap((each) => causeCodes(each, depth + 1)) : []
  return [...own, ...nested, ...causeCodes(error.cause, depth + 1)]
}

function statusFailure(error: APIError, status: number, nowMs: number): Failure {
  const asked = retryAfterMs(error.headers, nowMs)
  return { ...failure(outcomeOf(status, error.code ?? ''), error.message), httpStatus: status, retryAfterMs: asked }
}

/** What a proxy says when it lost sight of the upstream: the request may have been executed. */
const MAY_HAVE_RUN: ReadonlySet<number> = new Set([502, 504, 522, 524])

function outcomeOf(status: number, code: string): Failure['outcome'] {
  if (code === 'insufficient_quota' || status === 402) return 'quota_gone'
  if (code === 'context_length_exceeded' || status === 413) return 'context_too_long'
  if (code === 'content_filter') return 'content_filter'
  if (status === 404) return 'model_not_found'
  if (status === 429) return 'rate_limited'
  if (status === 401 || status === 403) return 'authentication'
  if (status === 408) return 'timeout'
  if (MAY_HAVE_RUN.has(status)) return 'network_after_send'
  return status >= 500 || status === 409 ? 'overloaded' : 'invalid_request'
}

function failure(outcome: Failure['outcome'], detail: string): Failure {
  return {
    outcome,
    sent: true,
    detail: detail.slice(0, MAX_DETAIL),
    httpStatus: null,
    retryAfterMs: null,
    received: NOTHING_RECEIVED,
  }
}
