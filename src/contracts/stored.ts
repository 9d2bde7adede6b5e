import { z } from 'zod'
import { BALANCE_CLASSES, ON_EXHAUSTED } from './names.ts'

/** Shapes of what stands in JSON columns: parsed when read, so that an old row with another shape is noticed. */

/**
 * An attempt's plan, stored with its hold and never made again: a process that finds it goes on from it. Money is in
 * nano as decimal strings.
 */
export const planSchema = z.object({
  route: z.string(),
  provider: z.string(),
  upstreamModel: z.string(),
  balanceClass: z.enum(BALANCE_CLASSES),
  currency: z.string(),
  priceId: z.string(),
  prices: z.object({
    inputNanoPerMillion: z.coerce.bigint(),
    cachedInputNanoPerMillion: z.coerce.bigint(),
    outputNanoPerMillion: z.coerce.bigint(),
    perCallNano: z.coerce.bigint(),
  }),
  inputTokenBound: z.int(),
  maxOutputTokens: z.int(),
  timeoutMs: z.int(),
  why: z.enum(['first', 'retry', 'fallback']),
  /** The outcome this attempt answers to: what was retried, or what it fell back from. */
  after: z.object({ attempt: z.int(), outcome: z.string() }).nullable(),
  skipped: z.array(z.object({ route: z.string(), reason: z.string() })),
})

export type Plan = z.infer<typeof planSchema>

/** A call's answer. */
export const answerSchema = z.object({ text: z.string(), finishReason: z.string().nullable() })

/** What is known of how an attempt ended. */
export const attemptDetailSchema = z
  .object({
    message: z.string().nullish(),
    httpStatus: z.int().nullish(),
    retryAfterMs: z.number().nullish(),
    providerRequestId: z.string().nullish(),
    lateOutcome: z.string().nullish(),
  })
  .nullish()

export const usageSchema = z.object({ input: z.int(), cachedInput: z.int(), output: z.int() }).nullish()

/** A run's options as stored: chosen by its owner at the start. */
export const runOptionsSchema = z.object({
  onExhausted: z.enum(ON_EXHAUSTED),
  mayRepeat: z.int(),
  pauseDeadlineMs: z.int(),
})

/** The limit that paused or ended a run. Amounts are decimal strings in the major unit. */
export const moneyStopSchema = z
  .object({ refusalId: z.string(), limit: z.string(), needed: z.string(), free: z.string(), currency: z.string() })
  .nullable()
