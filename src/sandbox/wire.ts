import type { IncomingMessage, ServerResponse } from 'node:http'
import type { RefusalKind } from './faults.ts'

/** The error object of OpenAI's API. */
export interface WireError {
  readonly status: number
  readonly message: string
  readonly type: string
  readonly code: string | null
  readonly param: string | null
}

export interface WireUsage {
  readonly prompt_tokens: number
  readonly completion_tokens: number
  readonly total_tokens: number
  readonly prompt_tokens_details: { readonly cached_tokens: number }
  readonly completion_tokens_details: { readonly reasoning_tokens: number }
}

export type FinishReason = 'stop' | 'length' | 'content_filter'

/** The parts that a completion and all its chunks share. */
export interface CompletionHead {
  readonly id: string
  readonly created: number
  readonly model: string
}

/** A prompt of 128,000 tokens takes about 600 KB. */
const MAX_BODY_BYTES = 4 * 1024 * 1024

export const refusals: Readonly<Record<RefusalKind, WireError>> = {
  rateLimit: {
    status: 429,
    message: 'Rate limit reached for requests. Please try again later.',
    type: 'requests',
    code: 'rate_limit_exceeded',
    param: null,
  },
  serverError: {
    status: 500,
    message: 'The server had an error while processing your request. Sorry about that!',
    type: 'server_error',
    code: null,
    param: null,
  },
  overloaded: {
    status: 503,
    message: 'The engine is currently overloaded, please try again later.',
    type: 'server_error',
    code: 'overloaded',
    param: null,
  },
  contextLength: contextTooLong(null),
}

export function contextTooLong(limits: { readonly allowed: number; readonly asked: number } | null): WireError {
  const detail =
    limits === null ? '' : ` It allows ${limits.allowed} tokens; prompt and answer would take ${limits.asked}.`
  return {
    status: 400,
    message: `This model's maximum context length is exceeded.${detail} Please reduce the length of the messages.`,
    type: 'invalid_request_error',
    code: 'context_length_exceeded',
    param: 'messages',
  }
}

export function invalidRequest(message: string, param: string | null): WireError {
  return { status: 400, message, type: 'invalid_request_error', code: null, param }
}

export const wrongKey: WireError = {
  status: 401,
  message: 'Incorrect API key provided.',
  type: 'invalid_request_error',
  code: 'invalid_api_key',
  param: null,
}

export function unknownModel(model: string): WireError {
  return {
    status: 404,
    message: `The model \`${model}\` does not exist or you do not have access to it.`,
    type: 'invalid_request_error',
    code: 'model_not_found',
    param: null,
  }
}

export function unknownUrl(method: string, path: string): WireError {
  return {
    status: 404,
    message: `Unknown request URL: ${method} ${path}`,
    type: 'invalid_request_error',
    code: 'unknown_url',
    param: null,
  }
}

export function sendJson(res: ServerResponse, status: number, body: unknown): void {
  res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

export function sendError(res: ServerResponse, { status, ...error }: WireError, retryAfterMs?: number): void {
  if (retryAfterMs !== undefined) {
    res.setHeader('retry-after-ms', String(retryAfterMs))
    res.setHeader('retry-after', String(Math.ceil(retryAfterMs / 1000)))
  }
  sendJson(res, status, { error })
}

/** Null when the body is longer than any prompt a model here takes. */
export async function readBody(req: IncomingMessage): Promise<string | null> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of req) {
    const buffer = Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk))
    bytes += buffer.length
    if (bytes <= MAX_BODY_BYTES) chunks.push(buffer)
  }
  return bytes > MAX_BODY_BYTES ? null : Buffer.concat(chunks).toString('utf8')
}

export function toCompletion(
  head: CompletionHead,
  choices: readonly { readonly text: string; readonly finishReason: FinishReason }[],
  usage: WireUsage | null,
): object {
  return {
    ...head,
    object: 'chat.completion',
    choices: choices.map(({ text, finishReason }, index) => ({
      index,
      message: { role: 'assistant', content: text, refusal: null },
      logprobs: null,
      finish_reason: finishReason,
    })),
    ...(usage === null ? {} : { usage }),
  }
}

export interface ChunkContent {
  readonly delta: { readonly role?: 'assistant'; readonly content?: string }
  readonly finishReason: FinishReason | null
}

/** One event of a stream. `usage: undefined` leaves the field out, as when the client did not ask for usage. */
export function toEvent(
  head: CompletionHead,
  content: ChunkContent | null,
  usage: WireUsage | null | undefined,
): string {
  const choices =
    content === null ? [] : [{ index: 0, delta: content.delta, logprobs: null, finish_reason: content.finishReason }]
  const chunk = { ...head, object: 'chat.completion.chunk', choices, ...(usage === undefined ? {} : { usage }) }
  return `data: ${JSON.stringify(chunk)}\n\n`
}

export function headerOf(req: IncomingMessage, name: string): string | null {
  const value = req.headers[name]
  return typeof value === 'string' ? value : null
}
