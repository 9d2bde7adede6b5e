import { AnswerCollector } from './answer-collector.ts'
import { MessageReader, problemOf } from './anthropic-answer.ts'
import { toMessageRequest, type AnthropicFeatures } from './anthropic-request.ts'
import { judgeChat } from './chat-verdict.ts'
import type { Connections } from './connections.ts'
import { dataOf, readEvents } from './event-stream.ts'
import { exchange } from './exchange.ts'
import { jsonIn } from './json-text.ts'
import { UpstreamError } from './problem.ts'
import { factsOf } from './prompt-facts.ts'
import type { Extras, Provider, ProviderChatRequest, ProviderResult } from './provider.ts'
import { askUpstream, type Upstream, type UpstreamAnswer } from './upstream.ts'

export interface AnthropicOptions extends AnthropicFeatures {
  readonly name: string
  /** With or without the `/v1` at its end. */
  readonly baseUrl: string
  readonly apiKey: string
  readonly nowMs: () => number
  /** Left out: straight to it. */
  readonly connections?: Connections | undefined
}

/** Of its API: as its own client (`@anthropic-ai/sdk`) sends it. */
const VERSION = '2026-10-21'

/** Anthropic's Messages API, and what speaks it. */
export function createAnthropic(options: AnthropicOptions): Provider {
  const upstream: Upstream = {
    baseUrl: options.baseUrl.replace(/\/v1\/?$/, ''),
    connections: options.connections,
    headers: { authorization: `Bearer ${options.apiKey}`, 'anthropic-version': VERSION },
    problemOf,
  }
  return { name: options.name, extras: EXTRAS, chat: (request) => chat(upstream, options, request) }
}

/** Under OpenAI's names too: `user` and `metadata.user_id` are one. */
const EXTRAS: Extras = Object.freeze({ embeddings: false, choices: false, parameters: ['metadata', 'user'] })

function chat(upstream: Upstream, options: AnthropicOptions, request: ProviderChatRequest): Promise<ProviderResult> {
  const answer = new AnswerCollector(factsOf(request.body), request)
  const reader = new MessageReader(answer)
  const body = toMessageRequest(request, options)
  const { clientRequestId } = request
  return exchange({
    ...request,
    ...options,
    answer,
    asked: () => JSON.stringify(body),
    judge: (received) => judgeChat(received, request),
    dialect: {
      send: (signal) => askUpstream(upstream, { path: '/v1/messages', body, clientRequestId, signal }),
      ...(request.streaming !== false && { events: eventsOf }),
      addEvent: (event) => reader.addEvent(event),
      addWhole: (whole) => reader.addWhole(whole),
    },
  })
}

/** What is named an error is one, whatever its data is; events without a name are none of this API. */
async function* eventsOf(answer: UpstreamAnswer): AsyncGenerator<unknown> {
  for await (const event of readEvents(answer.body.pieces())) {
    const { name, data } = event
    if (name === 'error') throw new UpstreamError(problemOf(jsonIn(data) ?? data))
    if (name !== undefined && name !== 'ping') yield dataOf(event)
    if (name === 'message_stop') return
  }
}
