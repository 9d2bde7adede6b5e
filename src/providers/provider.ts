import type { ChatBody, EmbedBody, ToolCall } from '#contracts/chat.ts'
import type { Outcome } from '#domain/policy.ts'
import type { Usage } from '#domain/pricing.ts'

interface ProviderRequest {
  readonly upstreamModel: string
  /** `<call id>:<attempt>`, sent along so that the provider's log can be matched with ours. */
  readonly clientRequestId: string
  /** From sending to the last byte, in milliseconds. */
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

export interface ProviderChatRequest extends ProviderRequest {
  /** Without its `maxTokens`: what the plan allows stands below. */
  readonly body: Omit<ChatBody, 'maxTokens'>
  readonly maxOutputTokens: number
  /**
   * From sending to the first event of the answer (a comment that keeps a stream alive is none), in milliseconds; left
   * out: only the whole is bounded.
   */
  readonly firstByteTimeoutMs?: number | undefined
  /** False for an upstream that cannot stream: the answer comes in one piece, with the same outcomes. */
  readonly streaming?: boolean | undefined
  /** Told each piece of the answer as it comes. */
  readonly onDelta?: ((delta: AnswerDelta) => void) | undefined
  /** Told the provider's own id of the request as soon as it is known. */
  readonly onRequestId?: ((id: string) => void) | undefined
}

export interface ProviderEmbedRequest extends ProviderRequest {
  readonly body: EmbedBody
}

/**
 * A piece of an answer: of the first one, unless `choice` names another. A tool call comes as its id and name, and then in
 * pieces of its arguments.
 */
export type AnswerDelta =
  | { readonly kind: 'text'; readonly choice?: number; readonly text: string }
  | {
      readonly kind: 'tool_call'
      readonly choice?: number
      readonly index: number
      readonly id?: string
      readonly name?: string
      readonly arguments: string
    }

/** Why a model ended its answer; anything else a provider says is kept as it said it. */
export type FinishReason = 'stop' | 'length' | 'tool_calls' | 'content_filter' | (string & {})

/** One answer to a prompt. */
export interface ReceivedChoice {
  readonly text: string
  readonly toolCalls: readonly ToolCall[]
  readonly finishReason: FinishReason | null
  /** Of the texts that end an answer, the one that did; null where none did, or its provider does not tell. */
  readonly stopSequence: string | null
}

/** What was received of an answer, whole or cut. */
export interface Received extends ReceivedChoice {
  /** Where several answers were asked for, those behind the first. */
  readonly others: readonly ReceivedChoice[]
  /** Of an embedding request, in the order of its texts; else empty. */
  readonly vectors: readonly (readonly number[])[]
  /** Hidden reasoning received as text, in UTF-8 bytes: it is billed, and not part of the answer. */
  readonly reasoningBytes: number
  /**
   * As the provider reported it, the prompt's images as we counted them; null when it reported none that can be true.
   * Without a finish reason it is a running count: right about the prompt, behind about the output.
   */
  readonly usage: Usage | null
  readonly providerRequestId: string | null
}

/** Exactly one attempt: no retries inside. Outcomes are returned, never thrown. */
export type ProviderResult =
  | { readonly outcome: 'answered'; readonly received: Received }
  | {
      readonly outcome: Exclude<Outcome, 'answered' | 'hold_refused' | 'lost'>
      /** False when the request surely never left. */
      readonly sent: boolean
      /** True when something of an answer came: its prompt is billed at least, whatever else came. */
      readonly isTakenOn?: boolean | undefined
      readonly detail: string
      readonly httpStatus: number | null
      readonly retryAfterMs: number | null
      readonly received: Received
    }

/** What a provider tells later of a request, asked by its own id. */
export type LookedUp =
  | { readonly kind: 'found'; readonly usage: Usage }
  /** It has it, or may have it, and does not tell yet. */
  | { readonly kind: 'not_yet' }
  | { readonly kind: 'unknown' }

/** What an upstream's API takes beyond what any chat can ask for, unless the catalog knows it better. */
export interface Extras {
  /** Texts as vectors. */
  readonly embeddings: boolean
  /** Several answers to one prompt. */
  readonly choices: boolean
  /** Names that it has for further members of a request. */
  readonly parameters: readonly string[]
}

/** An upstream behind one small interface. */
export interface Provider {
  readonly name: string
  readonly extras: Extras
  chat(request: ProviderChatRequest): Promise<ProviderResult>
  /** Left out where an upstream has no embeddings. */
  embed?(request: ProviderEmbedRequest): Promise<ProviderResult>
  /** Left out where an upstream cannot tell what became of a request. */
  lookUp?(providerRequestId: string, signal: AbortSignal): Promise<LookedUp>
}

export const NOTHING_RECEIVED: Received = Object.freeze({
  text: '',
  toolCalls: [],
  others: [],
  vectors: [],
  finishReason: null,
  stopSequence: null,
  reasoningBytes: 0,
  usage: null,
  providerRequestId: null,
})

/** All answers to the prompt, the first one first. */
export function choicesOf(received: Received): readonly ReceivedChoice[] {
  return [received, ...received.others]
}
