import { setTimeout as delay } from 'node:timers/promises'
import type { BilledUsage } from './bill.ts'
import type { ChatRequest } from './chat-request.ts'
import type { Faults } from './faults.ts'
import type { HoldPoint } from './holds.ts'
import type { Piece } from './tokens.ts'
import type { FinishReason, WireUsage } from './wire.ts'

/** An answer that is ready to be sent, and the request it belongs to. */
export interface Exchange {
  readonly seq: number
  readonly request: ChatRequest
  readonly faults: Faults
  readonly pieces: readonly Piece[]
  readonly finishReason: FinishReason
  readonly promptTokens: number
  readonly clientGone: AbortSignal
  readonly hold: { readonly at: HoldPoint; readonly wait: () => Promise<void> } | null
  /** Books what was generated so far: called at each end a request can come to. */
  readonly settle: (end: { readonly completionTokens: number; readonly isFinished: boolean }) => void
  /** Breaks the connection off, after what was written has left. */
  readonly cut: () => void
}

/** Waits, but no longer than the client does. */
export async function pause(waitMs: number, clientGone: AbortSignal): Promise<void> {
  if (waitMs <= 0 || clientGone.aborted) return
  try {
    await delay(waitMs, undefined, { signal: clientGone })
  } catch (error) {
    if (!clientGone.aborted) throw error
  }
}

/** The tokens that count when so many were generated. */
export function countedUsage(
  { promptTokens, faults }: Pick<Exchange, 'promptTokens' | 'faults'>,
  completionTokens: number,
): BilledUsage {
  return {
    promptTokens: Math.ceil(promptTokens * (faults.promptMultiplier ?? 1)),
    completionTokens: completionTokens + (faults.extraCompletionTokens ?? 0),
  }
}

/** What the provider says was used, which a fault may falsify; null when a fault leaves it out. */
export function reportedUsage(
  exchange: Pick<Exchange, 'promptTokens' | 'faults'>,
  completionTokens: number,
): WireUsage | null {
  const { faults } = exchange
  if (faults.usageMissing === true) return null
  const counted = countedUsage(exchange, completionTokens)
  const report = (tokens: number): number => Math.ceil(tokens * (faults.usageMultiplier ?? 1))
  const promptTokens = report(counted.promptTokens)
  const reportedTokens = report(counted.completionTokens)
  return {
    prompt_tokens: promptTokens,
    completion_tokens: reportedTokens,
    total_tokens: promptTokens + reportedTokens,
    prompt_tokens_details: { cached_tokens: 0 },
    completion_tokens_details: { reasoning_tokens: report(faults.extraCompletionTokens ?? 0) },
  }
}
