import { setTimeout as delay } from 'node:timers/promises'
import { type BilledUsage, NO_USAGE } from './bill.ts'
import type { ModelSettings, SandboxModel } from './config.ts'
import type { Faults } from './faults.ts'
import type { HoldPoint } from './holds.ts'
import type { Output } from './output.ts'
import type { PromptUsage } from './prompt.ts'
import type { ModelRequest } from './request.ts'

/** An answer that is ready to be sent, and the request it belongs to. */
export interface Exchange {
  /** The provider's own id of the request, without a prefix. */
  readonly id: string
  readonly request: ModelRequest
  readonly faults: Faults
  readonly model: SandboxModel
  readonly settings: ModelSettings
  readonly prompt: PromptUsage
  readonly output: Output
  readonly clientGone: AbortSignal
  readonly hold: { readonly at: HoldPoint; readonly wait: () => Promise<void> } | null
  /** Books what was generated so far: called at each end a request can come to. */
  readonly settle: (end: Generated & { readonly isFinished: boolean }) => void
  /** Breaks the connection off, after what was written has left. */
  readonly cut: () => void
}

/** How much of an answer was generated; the reasoning is part of the completion. */
export interface Generated {
  readonly completionTokens: number
  readonly reasoningTokens: number
}

export const NOTHING_GENERATED: Generated = { completionTokens: 0, reasoningTokens: 0 }

/** A client that never goes away does not keep a hanging request for ever. */
const LONGEST_HANG_MS = 600_000

/** Waits, but no longer than the client does. */
export async function pause(waitMs: number, clientGone: AbortSignal): Promise<void> {
  if (waitMs <= 0 || clientGone.aborted) return
  try {
    await delay(waitMs, undefined, { signal: clientGone })
  } catch (error) {
    if (!clientGone.aborted) throw error
  }
}

export async function hang(clientGone: AbortSignal): Promise<void> {
  await pause(LONGEST_HANG_MS, clientGone)
}

/** The usage that counts when so much was generated. */
export function countedUsage(
  { prompt, faults, request }: Pick<Exchange, 'prompt' | 'faults' | 'request'>,
  generated: Generated,
): BilledUsage {
  const promptTokens = Math.ceil(prompt.promptTokens * (faults.promptMultiplier ?? 1))
  const cachedTokens = Math.min(prompt.cachedTokens, promptTokens)
  const extra = faults.extraCompletionTokens ?? 0
  const isBegun = generated.completionTokens > 0
  return {
    promptTokens,
    cachedTokens,
    cacheWriteTokens: Math.min(prompt.cacheWriteTokens, promptTokens - cachedTokens),
    completionTokens: generated.completionTokens + extra,
    reasoningTokens: generated.reasoningTokens + extra,
    images: prompt.images,
    toolUses: isBegun ? Object.fromEntries(request.ownTools.map((tool) => [tool, 1])) : NO_USAGE.toolUses,
  }
}

/** What the provider says was used, which a fault may multiply; null when a fault leaves it out. */
export function reportedUsage(
  exchange: Pick<Exchange, 'prompt' | 'faults' | 'request'>,
  generated: Generated,
): BilledUsage | null {
  const { usageMissing, usageMultiplier = 1 } = exchange.faults
  if (usageMissing === true) return null
  const counted = countedUsage(exchange, generated)
  const report = (tokens: number): number => Math.ceil(tokens * usageMultiplier)
  return {
    ...counted,
    promptTokens: report(counted.promptTokens),
    cachedTokens: report(counted.cachedTokens),
    cacheWriteTokens: report(counted.cacheWriteTokens),
    completionTokens: report(counted.completionTokens),
    reasoningTokens: report(counted.reasoningTokens),
  }
}

/** A fault makes of each number in a usage object what no count of tokens can be. */
export function spoilUsage(usage: object, { usageWrong }: Faults): object {
  if (usageWrong === undefined) return usage
  const spoil = (value: unknown): unknown => {
    if (typeof value === 'number') return usageWrong === 'negative' ? -1 - value : String(value)
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, spoil(each)]))
  }
  return Object.fromEntries(Object.entries(usage).map(([name, value]) => [name, spoil(value)]))
}
