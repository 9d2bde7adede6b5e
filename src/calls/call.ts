import type { ChatBody } from '#contracts/chat.ts'
import type { Scope } from '#db/database.ts'

/** The request as asked: with the path it makes the call's key. */
export type CallBody = ChatBody

export interface CallRequest {
  readonly scope: Scope
  readonly runId: string
  readonly envelopeId: string
  readonly apiKeyId: string
  /** Logical path within the run: never an order of completion, never an id of the workflow engine. */
  readonly path: string
  /** Catalog model. */
  readonly model: string
  readonly body: CallBody
  /** How often it may be sent again after an attempt that may have been executed. */
  readonly mayRepeat: number
  /** The caller is gone: abort and settle. A reason of `Draining` means that the call goes on in another process. */
  readonly signal: AbortSignal
  /** When the engine must have returned, in milliseconds of the clock it was given. */
  readonly deadlineMs: number
}

export interface CallAnswer {
  readonly text: string
  readonly finishReason: string | null
}

/** Why no hold could be had. */
export interface HoldRefusal {
  readonly id: string
  readonly route: string
  /** What bound it, in words: `direct pocket`, `key limit per day`. */
  readonly limit: string
  readonly measure: 'money' | 'tokens' | 'calls'
  readonly currency: string
  /** In nano when money is measured, else in tokens or calls. */
  readonly needed: bigint
  readonly free: bigint
}

/** What became of a call, after settlement's commit. */
export type CallResult =
  | { readonly kind: 'answered'; readonly callId: string; readonly answerId: string; readonly answer: CallAnswer }
  | { readonly kind: 'exhausted'; readonly callId: string; readonly refusal: HoldRefusal }
  | { readonly kind: 'gate'; readonly callId: string; readonly gate: 'frozen' | 'closing' | 'closed' }
  | { readonly kind: 'waiting'; readonly callId: string; readonly untilMs: number }
  | { readonly kind: 'failed'; readonly callId: string; readonly reason: string; readonly detail: string }
