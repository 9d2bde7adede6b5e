import type { Tight } from '#contracts/call-choices.ts'
import type { ChatBody, EmbedBody, ToolCall } from '#contracts/chat.ts'
import type { BalanceClass } from '#contracts/names.ts'
import type { CallReceipt } from '#db/call-receipt.ts'
import type { Scope } from '#db/database.ts'
import type { Outcome } from '#domain/policy.ts'
import type { RouteBounds } from '#domain/route-choice.ts'
import type { AnswerDelta } from '#providers/provider.ts'
import type { InTurn } from './places.ts'

export type { AnswerDelta } from '#providers/provider.ts'

/** What an attempt was granted: in nano of its pocket's currency. */
export interface HeldMoney {
  readonly callId: string
  readonly route: string
  readonly balanceClass: BalanceClass
  readonly held: bigint
  readonly currency: string
  /** Of the prompt, where the route's own tokeniser counted it. */
  readonly inputTokens: number | undefined
}

/** The request as asked: with the path it makes the call's key. */
export type CallBody = ChatBody | EmbedBody

export interface CallRequest {
  readonly scope: Scope
  /** Null for a call of a standing envelope: its path alone names it then. */
  readonly runId: string | null
  readonly envelopeId: string
  readonly apiKeyId: string
  /** Logical path within the run: never an order of completion, never an id of the workflow engine. */
  readonly path: string
  /**
   * A new id that the call's ids begin like, so that they are written side by side; left out: its run or envelope, which may
   * be old.
   */
  readonly anchor?: string
  /** Catalog model. */
  readonly model: string
  readonly body: CallBody
  /** What its routes have to keep to: its run's constraints and its key's. */
  readonly bounds?: readonly RouteBounds[] | undefined
  /** How often it may be sent again after an attempt that may have been executed. */
  readonly mayRepeat: number
  /** A new pass over the routes: what was away or busy in an earlier one is asked again. */
  readonly again?: boolean
  /** How often besides that, because a person who was asked has allowed it. */
  readonly granted?: number
  /** Left out: refuse. */
  readonly tight?: Tight | undefined
  /** May be answered with the project's stored answer to the same request, so old at most, and lets others use its own. */
  readonly reuse?: { readonly maxAgeMs: number } | undefined
  /** Its run was forked: the run whose answers to the same calls are its own, at no cost. */
  readonly fork?: { readonly sourceRunId: string } | undefined
  /** The longest prompt it may have; a longer one fails the call before anything is held. */
  readonly inputTokensPerCall?: number | undefined
  /** Told each piece of the answer as it comes. Once it was told any, the call is not sent again: it fails. */
  readonly onDelta?: ((delta: AnswerDelta) => void) | undefined
  /** Told what an attempt holds, and on which route, before it is sent. */
  readonly onHeld?: ((held: HeldMoney) => void) | undefined
  /** Sends an attempt that is held when there is a place for it: while it waits there, others may be held and settled. */
  readonly inTurn?: InTurn | undefined
  /** Its answer says what it cost, where that is known without a look. */
  readonly withReceipt?: true | undefined
  /** The caller is gone: abort and settle. A reason of `Draining` means that the call goes on in another process. */
  readonly signal: AbortSignal
  /** When the engine must have returned, in milliseconds of the clock it was given. */
  readonly deadlineMs: number
}

/** One answer to a prompt. */
export interface AnswerChoice {
  readonly text: string
  readonly finishReason: string | null
  /** Of the texts that end an answer, the one that did, where its provider tells. */
  readonly stopSequence?: string | undefined
  readonly toolCalls?: readonly ToolCall[] | undefined
}

export interface CallAnswer extends AnswerChoice {
  /** Where several answers were asked for, those behind the first. */
  readonly others?: readonly AnswerChoice[] | undefined
  /** Of an embedding call: each vector as base64 of its little-endian 32-bit floats. */
  readonly vectors?: readonly string[] | undefined
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
  | {
      readonly kind: 'answered'
      readonly callId: string
      readonly answerId: string
      readonly answer: CallAnswer
      /** Of a call that its first attempt answered here and now: what would be read of it. */
      readonly receipt?: CallReceipt | undefined
      /** Beside the receipt: what the pocket that paid could pay after it, in nano. */
      readonly reach?: bigint | undefined
    }
  | { readonly kind: 'exhausted'; readonly callId: string; readonly refusal: HoldRefusal }
  | { readonly kind: 'gate'; readonly callId: string; readonly gate: 'frozen' | 'closing' | 'closed' }
  | {
      readonly kind: 'waiting'
      readonly callId: string
      readonly untilMs: number
      /** Left out unless it is the window of a limit that is waited for. */
      readonly refusal?: HoldRefusal
    }
  | {
      readonly kind: 'failed'
      readonly callId: string
      readonly reason: string
      readonly detail: string
      /** How its last request ended. */
      readonly outcome?: Outcome
      /** The member of the request that no route takes. */
      readonly parameter?: string
      /** The last route was away or busy, and nothing was executed there: asked `again` later, it may be answered. */
      readonly isPassing?: true
    }
