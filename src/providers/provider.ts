import type { JsonSchema } from '#contracts/agents.ts'
import type { Outcome } from '#domain/policy.ts'
import type { Usage } from '#domain/pricing.ts'

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant'
  readonly content: string
}

export interface ProviderRequest {
  readonly upstreamModel: string
  readonly messages: readonly ChatMessage[]
  readonly maxOutputTokens: number
  readonly schema?: { readonly name: string; readonly schema: JsonSchema }
  /** `<call id>:<attempt>`, sent along so that the provider's log can be matched with ours. */
  readonly clientRequestId: string
  /** From sending to the last byte, in milliseconds. */
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

/** What was received of an answer, whole or cut. */
export interface Received {
  readonly text: string
  readonly finishReason: string | null
  /** As the provider reported it; null when it reported none. */
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
      readonly detail: string
      readonly httpStatus: number | null
      readonly retryAfterMs: number | null
      readonly received: Received
    }

/** An upstream behind one small interface. */
export interface Provider {
  readonly name: string
  chat(request: ProviderRequest): Promise<ProviderResult>
}

export const NOTHING_RECEIVED: Received = Object.freeze({
  text: '',
  finishReason: null,
  usage: null,
  providerRequestId: null,
})
