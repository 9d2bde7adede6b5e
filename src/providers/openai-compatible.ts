import type { MaxTokensField } from '#contracts/names.ts'
import { AnswerCollector } from './answer-collector.ts'
import { judgeChat } from './chat-verdict.ts'
import type { Connections } from './connections.ts'
import { dataOf, readEvents } from './event-stream.ts'
import { exchange } from './exchange.ts'
import { jsonIn } from './json-text.ts'
import { addCompletion, problemOf } from './openai-answer.ts'
import { addEmbeddings, judgeVectors, toEmbedding } from './openai-embedding.ts'
import { toChatCompletion } from './openai-request.ts'
import { lookUpGeneration } from './openrouter-generation.ts'
import { factsOf } from './prompt-facts.ts'
import type { Extras, Provider, ProviderChatRequest, ProviderEmbedRequest, ProviderResult } from './provider.ts'
import { recordOf } from './untrusted.ts'
import { askUpstream, type Upstream, type UpstreamAnswer } from './upstream.ts'

export interface OpenAiCompatibleOptions {
  readonly name: string
  readonly baseUrl: string
  readonly apiKey: string
  /** Left out: as OpenAI's newer models want it there, and as all others do elsewhere. */
  readonly maxTokensField?: MaxTokensField | undefined
  readonly nowMs: () => number
  /** Left out: straight to it. */
  readonly connections?: Connections | undefined
}

interface ChatSettings extends OpenAiCompatibleOptions {
  readonly maxTokensField: MaxTokensField
  readonly extras: Extras
}

/** OpenAI, and everything that speaks its chat completions. Streams, so that an abort knows what it received. */
export function createOpenAiCompatible(options: OpenAiCompatibleOptions): Provider {
  return withExtras(options, usualExtras(options.baseUrl))
}

function withExtras(options: OpenAiCompatibleOptions, extras: Extras): Provider {
  const upstream = upstreamOf(options)
  const maxTokensField = options.maxTokensField ?? usualMaxTokensField(options.baseUrl)
  const settings = { ...options, maxTokensField, extras }
  return {
    name: options.name,
    extras,
    chat: (request) => chat(upstream, settings, request),
    embed: (request) => embed(upstream, options, request),
  }
}

/** The same with OpenRouter's memory of what it generated. */
export function createOpenRouter(options: OpenAiCompatibleOptions): Provider {
  const upstream = upstreamOf(options)
  return {
    ...withExtras(options, OPENROUTER_EXTRAS),
    lookUp: (providerRequestId, signal) => lookUpGeneration(upstream, providerRequestId, signal),
  }
}

function upstreamOf({ baseUrl, apiKey, connections }: OpenAiCompatibleOptions): Upstream {
  return {
    baseUrl,
    connections,
    headers: { authorization: `Bearer ${apiKey}` },
    problemOf: (body) => problemOf(recordOf(body)?.['error'] ?? body),
  }
}

function chat(upstream: Upstream, settings: ChatSettings, request: ProviderChatRequest): Promise<ProviderResult> {
  const answer = new AnswerCollector(factsOf(request.body), { ...request, choices: request.body.choices })
  const body = toChatCompletion(request, settings)
  return exchange({
    ...request,
    ...settings,
    answer,
    asked: () => JSON.stringify(body),
    judge: (received) => judgeChat(received, request),
    dialect: {
      async send(signal) {
        const { clientRequestId } = request
        const response = await askUpstream(upstream, { path: '/chat/completions', body, clientRequestId, signal })
        // OpenRouter's id of the generation, before its first token.
        answer.noteRequestId(response.headers.get('x-generation-id'))
        return response
      },
      ...(request.streaming !== false && {
        events: (response) => chunksOf(response),
      }),
      addEvent: (event) => addCompletion(event, answer),
      addWhole: (whole) => addCompletion(whole, answer),
    },
  })
}

/** What an upstream says is wrong becomes a chunk that says so, however it was named. */
async function* chunksOf(answer: UpstreamAnswer): AsyncGenerator<unknown> {
  for await (const event of readEvents(answer.body.pieces())) {
    if (event.data.startsWith('[DONE]')) return
    yield event.name === 'error' ? errorIn(event.data) : dataOf(event)
  }
}

function errorIn(data: string): { readonly error: unknown } {
  const chunk = jsonIn(data) ?? data
  return { error: recordOf(chunk)?.['error'] ?? chunk }
}

function embed(
  upstream: Upstream,
  options: OpenAiCompatibleOptions,
  request: ProviderEmbedRequest,
): Promise<ProviderResult> {
  const { clientRequestId } = request
  const { input } = request.body
  const body = toEmbedding(request)
  const answer = new AnswerCollector({ characters: input.join('').length, images: 0 })
  return exchange({
    ...request,
    ...options,
    answer,
    asked: () => JSON.stringify(body),
    judge: (received) => judgeVectors(received, request),
    dialect: {
      send: (signal) => askUpstream(upstream, { path: '/embeddings', body, clientRequestId, signal }),
      addWhole: (whole) => addEmbeddings(whole, answer),
    },
  })
}

/** OpenAI's reasoning models refuse `max_tokens`; hardly anybody else knows its new name. */
function usualMaxTokensField(baseUrl: string): MaxTokensField {
  return isOpenAi(baseUrl) ? 'max_completion_tokens' : 'max_tokens'
}

/** What those who speak this API have in common. `response_format`: a JSON object of any shape. */
const USUAL_PARAMETERS = [
  'frequency_penalty',
  'logit_bias',
  'metadata',
  'presence_penalty',
  'response_format',
  'user',
] as const
const OPENAI_PARAMETERS = [
  ...USUAL_PARAMETERS,
  'prompt_cache_key',
  'prompt_cache_retention',
  'safety_identifier',
  'verbosity',
]

/** Its reference knows no `n` (openrouter.ai/docs/api-reference/parameters). */
const OPENROUTER_EXTRAS: Extras = Object.freeze({
  embeddings: true,
  choices: false,
  parameters: [...USUAL_PARAMETERS, 'min_p', 'repetition_penalty', 'top_a', 'top_k', 'verbosity'],
})

function usualExtras(baseUrl: string): Extras {
  return { embeddings: true, choices: true, parameters: isOpenAi(baseUrl) ? OPENAI_PARAMETERS : USUAL_PARAMETERS }
}

function isOpenAi(baseUrl: string): boolean {
  const { hostname } = new URL(baseUrl)
  return hostname === 'api.openai.com' || hostname.endsWith('.openai.azure.com')
}
