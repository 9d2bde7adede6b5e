import { CLIENT_REQUEST_ID_HEADER } from '#contracts/names.ts'
import Anthropic, { APIConnectionError, APIError, APIUserAbortError } from '@anthropic-ai/sdk'
import { Stream } from '@anthropic-ai/sdk/streaming'
import { AnswerCollector } from './answer-collector.ts'
import { MessageReader, problemOf } from './anthropic-answer.ts'
import { toMessageRequest, type AnthropicFeatures } from './anthropic-request.ts'
import { following } from './attempt-clock.ts'
import { boundedFetch } from './bounded-fetch.ts'
import { judgeChat } from './chat-verdict.ts'
import { exchange } from './exchange.ts'
import type { Problem } from './problem.ts'
import { factsOf } from './prompt-facts.ts'
import type { Extras, Provider, ProviderChatRequest, ProviderResult } from './provider.ts'

export interface AnthropicOptions extends AnthropicFeatures {
  readonly name: string
  /** With or without the `/v1` at its end. */
  readonly baseUrl: string
  readonly apiKey: string
  readonly nowMs: () => number
}

/** Anthropic's Messages API, and what speaks it. */
export function createAnthropic(options: AnthropicOptions): Provider {
  const client = new Anthropic({
    baseURL: options.baseUrl.replace(/\/v1\/?$/, ''),
    apiKey: options.apiKey,
    maxRetries: 0,
    // Silent, as with the other dialect.
    logLevel: 'off',
    fetch: boundedFetch,
  })
  return { name: options.name, extras: EXTRAS, chat: (request) => chat(client, options, request) }
}

/** Under OpenAI's names too: `user` and `metadata.user_id` are one. */
const EXTRAS: Extras = Object.freeze({ embeddings: false, choices: false, parameters: ['metadata', 'user'] })

function chat(client: Anthropic, options: AnthropicOptions, request: ProviderChatRequest): Promise<ProviderResult> {
  const answer = new AnswerCollector(factsOf(request.body), request)
  const reader = new MessageReader(answer)
  const body = toMessageRequest(request, options)
  return exchange({
    ...request,
    ...options,
    answer,
    judge: (received) => judgeChat(received, request),
    dialect: {
      // Not `messages.create`, which prints warnings about models to our log at each call.
      send: (signal) =>
        client
          .post('/v1/messages', {
            body,
            stream: request.streaming !== false,
            signal,
            headers: { [CLIENT_REQUEST_ID_HEADER]: request.clientRequestId },
          })
          .asResponse(),
      ...(request.streaming !== false && {
        // With the client, whose silence is wanted here too.
        events: (response, signal) => Stream.fromSSEResponse(response, following(signal), client),
      }),
      addEvent: (event) => reader.addEvent(event),
      addWhole: (whole) => reader.addWhole(whole),
      problemOf: problemOfClient,
    },
  })
}

function problemOfClient(error: unknown): Problem | null {
  if (!(error instanceof APIError) || error instanceof APIConnectionError || error instanceof APIUserAbortError)
    return null
  return { ...problemOf(error.error), status: error.status ?? null, message: error.message, headers: error.headers }
}
