import type { JsonSchema } from './agents.ts'
import type { BalanceClass, WhenExhausted } from './names.ts'

/** Most bytes (UTF-8, as JSON) of one value in a workflow's history: larger ones stand behind a ref, in Postgres. */
export const MAX_VALUE_BYTES = 16_384

/** A piece of a message: text, or a reference to a stored payload that the activity writes out in its place. */
export type MessagePart = string | { readonly ref: string }

export interface KitMessage {
  readonly role: 'system' | 'user' | 'assistant'
  readonly parts: readonly MessagePart[]
}

export interface ChatRequest {
  readonly runId: string
  /** Logical path of the call within its run, such as `read/2`: with the request's digest it is the call's key. */
  readonly path: string
  readonly model: string
  readonly messages: readonly KitMessage[]
  /** Most output tokens the agent wants. */
  readonly maxTokens: number
  /** When given, the answer must be JSON of this schema, and comes back as `object`. */
  readonly schema?: { readonly name: string; readonly schema: JsonSchema }
  /** The run goes on with what its owner chose for after its money: another model, other routes. */
  readonly downgraded?: true
  /** It is paid from the wrap-up reserve. */
  readonly wrapUp?: true
  /** A new pass over its routes, after a wait for a provider that was away. */
  readonly again?: true
  /** How often its owner allowed it to be sent again, besides what the run was started with. */
  readonly repeats?: number
}

/** Why money, or a limit, stopped a call. Amounts are decimal strings in the major unit; `currency` may be tokens or calls. */
export interface MoneyStop {
  readonly refusalId: string
  readonly limit: string
  readonly needed: string
  readonly free: string
  readonly currency: string
}

/** What became of a call. Outcomes are returned, never thrown: only lost workers and an absent store are retried. */
export type ChatResult =
  /** `text` only when no schema was asked and it fits a history; `object` is checked against the schema. */
  | {
      readonly kind: 'answered'
      readonly callId: string
      readonly ref: string
      readonly text?: string
      readonly object?: unknown
      /** What served it and what was held for that, for people who watch the workflow. */
      readonly route?: string
      readonly held?: string
    }
  | { readonly kind: 'exhausted'; readonly callId: string; readonly stop: MoneyStop }
  | { readonly kind: 'gate'; readonly gate: 'frozen' | 'closing' | 'closed' }
  /** The next attempt is due in `waitMs`; the workflow sleeps on a timer and asks again. */
  | { readonly kind: 'waiting'; readonly waitMs: number }
  | {
      readonly kind: 'failed'
      readonly callId?: string
      readonly reason: string
      readonly detail: string
      /** Its provider was away or busy, and nothing was executed: it may be asked again. */
      readonly isPassing?: true
    }

export interface ToolRequest {
  readonly runId: string
  readonly path: string
  readonly tool: string
  readonly input: unknown
}

export type ToolResult =
  /** `value` is small and checked (≤ 16 KB); everything large is behind `ref`. */
  | { readonly kind: 'done'; readonly ref: string; readonly value: unknown }
  | { readonly kind: 'failed'; readonly reason: string; readonly detail: string }

export interface BegunRun {
  readonly input: unknown
  readonly model: string
  readonly onExhausted: WhenExhausted
  /** Milliseconds a run may stay paused before it ends as partial. */
  readonly pauseDeadlineMs: number
  /** Milliseconds until its time is over. */
  readonly deadlineInMs?: number
  /** It has a reserve to deliver from when it is stopped. */
  readonly hasWrapUp?: boolean
  readonly downgraded?: boolean
  /** What follows a downgrade. */
  readonly afterDowngrade?: 'pause' | 'cancel'
  /** Its owner is asked before a call is sent again that may have been executed. */
  readonly asksToRepeat?: boolean
  /** It begins, or goes on in a new history, with its money frozen: it is paused, or is to deliver. */
  readonly isFrozen?: boolean
}

/**
 * Where a run stands when its workflow asks: what it does next is decided by this alone. `wrapping_up`: it was told to stop
 * and to deliver what it has.
 */
export type RunStanding = 'running' | 'paused' | 'wrapping_up' | 'closing' | 'finished'

export const END_REASONS = [
  'finished',
  'money_exhausted',
  'pause_expired',
  'deadline',
  /** Nothing was asked through its key for too long. */
  'idle',
  'cancelled',
  /** Its workflow is gone: it was terminated, or lost. */
  'workflow_gone',
  'call_failed',
  'tool_failed',
  'child_failed',
  'output_too_large',
  'agent_error',
  'internal',
] as const
/** Why a run ended, as a closed set; the sentence for people stands beside it. */
export type EndReason = (typeof END_REASONS)[number]

export const PAUSE_REASONS = ['money_exhausted', 'paused_by_owner', 'input'] as const
/** Why a run is paused: for money, by a person, or for an answer. */
export type PauseReason = (typeof PAUSE_REASONS)[number]

/** How a run ends. Whoever ended it first stands: a later end changes nothing. */
export interface RunEnd {
  readonly state: 'completed' | 'partial' | 'cancelled' | 'failed'
  readonly reason: EndReason
  /** One sentence for people. */
  readonly detail: string
  /** The limit that ended it, when money did. */
  readonly stop?: MoneyStop
}

export interface ClosingRequest {
  readonly runId: string
  readonly reason: EndReason
  readonly detail: string
  readonly stop?: MoneyStop
  /** `paused`: only if the run is still paused, so that a top-up that was accepted in time is never ignored. */
  readonly from: 'any' | 'paused'
  /** Only the work ends: the reserve is opened for delivering, if there is one. */
  readonly wrapUp?: boolean
}

export interface QuestionRequest {
  readonly runId: string
  readonly path: string
  readonly question: string
  readonly choices?: readonly string[]
  /** Its time is over: this is its answer, unless somebody was faster. */
  readonly otherwise?: string
}

/** Decimal strings in the major unit. */
export interface PocketMoney {
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly amount: string
}

export interface ChildRequest {
  /** The parent. */
  readonly runId: string
  readonly path: string
  readonly agent: string
  readonly input: unknown
  /** Catalog model; the parent's unless given. */
  readonly model?: string
  /** What is carved for it, and the most it may have. Left out: it spends the parent's remainder as it needs it. */
  readonly budget?: readonly PocketMoney[]
}

export type ChildOpening =
  | { readonly kind: 'opened'; readonly runId: string }
  | { readonly kind: 'refused'; readonly reason: string; readonly detail: string }

export interface ChildEnd {
  readonly state: RunEnd['state']
  readonly reason: string
  readonly detail: string
  readonly output: unknown
}

/** What is left of a pocket, and of what the run may use besides. */
export interface PocketBudget {
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly funded: string
  readonly spent: string
  readonly held: string
  readonly free: string
}

export interface Budget {
  readonly pockets: readonly PocketBudget[]
  readonly calls: number
  readonly downgraded: boolean
}

export interface FinishRequest {
  readonly runId: string
  readonly end: RunEnd
  /** What the agent delivers: at most `MAX_VALUE_BYTES`. */
  readonly output: unknown
  /** Why its wrap-up delivered nothing; told behind why it ended. */
  readonly wrapUpFailure?: string
}

/** `state`: as what it ended, when that is not what was asked for: whoever ends a run first stands. */
export interface Finished {
  readonly finished: boolean
  readonly state?: RunEnd['state']
}

export interface Idle {
  readonly isOver: boolean
  /** Until it may be over, in milliseconds. */
  readonly leftMs: number
}

/** One call each: what the workflow may ask for. Implemented in `activities/`. */
export interface CallActivities {
  chat(request: ChatRequest): Promise<ChatResult>
}

export interface ToolActivities {
  tool(request: ToolRequest): Promise<ToolResult>
}

export interface RunActivities {
  /** queued → running; gives what the agent needs. Safe to repeat. */
  beginRun(request: { readonly runId: string }): Promise<BegunRun | { readonly closing: true }>
  /** Pauses for money unless the money has come in the meantime; answers where the run stands afterwards. */
  pauseForMoney(request: { readonly runId: string; readonly stop: MoneyStop }): Promise<RunStanding>
  /** Ends the run's spending for good: from its commit on no request begins. Answers where the run stands afterwards. */
  beginClosing(request: ClosingRequest): Promise<RunStanding>
  standing(request: { readonly runId: string }): Promise<RunStanding>
  /** From its commit on calls use what the owner chose for after the money. Answers where the run stands afterwards. */
  downgradeRun(request: { readonly runId: string; readonly stop: MoneyStop }): Promise<RunStanding>
  /** Puts a question to the owner, or gives its answer. `isEnding`: nobody can answer any more. */
  askOwner(request: QuestionRequest): Promise<{ readonly answer?: string; readonly isEnding?: true }>
  /** Opens a child run and carves its money, in one commit, before it starts. Safe to repeat. */
  openChild(request: ChildRequest): Promise<ChildOpening>
  /** How a run ended; null while it goes on. */
  childEnd(request: { readonly runId: string }): Promise<ChildEnd | null>
  /** What is left to the work of a run, or with `wrapUp` to what delivers. */
  budget(request: { readonly runId: string; readonly wrapUp?: true }): Promise<Budget>
  /** Settles what is open, closes the envelope and writes the final state; `false` while an attempt is still in flight. */
  finishRun(request: FinishRequest): Promise<Finished>
  /** Ends an external run that has made no call for so long, in the commit that sees so. */
  endIfIdle(request: { readonly runId: string; readonly idleMs: number }): Promise<Idle>
}

/** The signal that tells a run's workflow to look at its row again. Carries nothing: rows are the truth. */
export const WAKE_SIGNAL = 'wake'
