import type { Prices, TokenPrices, Usage } from '#domain/pricing.ts'
import { pocketsSchema } from './api-money.ts'
import { z } from 'zod'
import { reuseSchema, tightSchema } from './call-choices.ts'
import { constraintsSchema } from './constraints.ts'
import { BALANCE_CLASSES, KEY_SCOPES, OPERATOR_SCOPES, WHEN_EXHAUSTED } from './names.ts'
import { downgradeSchema, runLimitsSchema } from './run-options.ts'

/** Shapes of what stands in JSON columns: parsed when read, so that an old row with another shape is noticed. */

const nano = z.coerce.bigint()

const tokenPrices = {
  inputNanoPerMillion: nano,
  cachedInputNanoPerMillion: nano,
  cacheWriteNanoPerMillion: nano.optional(),
  outputNanoPerMillion: nano,
  reasoningNanoPerMillion: nano.optional(),
}

type StoredTokenPrices = z.infer<z.ZodObject<typeof tokenPrices>>

function filledIn<Stored extends StoredTokenPrices>(prices: Stored): Stored & TokenPrices {
  return {
    ...prices,
    cacheWriteNanoPerMillion: prices.cacheWriteNanoPerMillion ?? prices.inputNanoPerMillion,
    reasoningNanoPerMillion: prices.reasoningNanoPerMillion ?? prices.outputNanoPerMillion,
  }
}

/** Prices as they stand in a plan: see `storedPrices`. */
const storedPricesSchema: z.ZodType<Prices> = z
  .object({
    ...tokenPrices,
    perCallNano: nano,
    perImageNano: nano.default(0n),
    toolFeesNano: z.record(z.string(), nano).default({}),
    tiers: z.array(z.object({ aboveInputTokens: z.int(), ...tokenPrices }).transform(filledIn)).default([]),
  })
  .transform(filledIn)

export function pricesFromStored(stored: unknown): Prices {
  return storedPricesSchema.parse(stored)
}

/** The one way in which prices stand in JSON: what costs the same as plain input or output, or nothing, is left out. */
export function storedPrices(prices: Prices): Readonly<Record<string, unknown>> {
  return {
    ...storedTokenPrices(prices),
    perCallNano: prices.perCallNano,
    ...(prices.perImageNano > 0n && { perImageNano: prices.perImageNano }),
    ...(Object.keys(prices.toolFeesNano).length > 0 && { toolFeesNano: prices.toolFeesNano }),
    ...(prices.tiers.length > 0 && {
      tiers: prices.tiers.map((tier) => ({
        aboveInputTokens: tier.aboveInputTokens,
        ...storedTokenPrices(tier),
      })),
    }),
  }
}

function storedTokenPrices(prices: TokenPrices) {
  const { inputNanoPerMillion, cachedInputNanoPerMillion, cacheWriteNanoPerMillion } = prices
  const { outputNanoPerMillion, reasoningNanoPerMillion } = prices
  return {
    inputNanoPerMillion,
    cachedInputNanoPerMillion,
    ...(cacheWriteNanoPerMillion !== inputNanoPerMillion && { cacheWriteNanoPerMillion }),
    outputNanoPerMillion,
    ...(reasoningNanoPerMillion !== outputNanoPerMillion && { reasoningNanoPerMillion }),
  }
}

/** What a provider bills for an attempt, where that is not what is paid for it. */
export const plannedCostSchema = z.object({
  currency: z.string(),
  prices: storedPricesSchema,
  /** The worst case at those prices, in nano of that currency. */
  held: nano,
  markupBps: z.int(),
  /** What one currency costs in the other, when they differ: `sell` nano of the cost's for `buy` of the plan's. */
  quote: z.object({ id: z.string(), sell: nano, buy: nano }).nullable(),
})

export type PlannedCost = Readonly<z.infer<typeof plannedCostSchema>>

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
  /** What the wallet pays (sell), in `currency`: the hold and the capture are made with it. */
  prices: storedPricesSchema,
  /** What the provider bills, where that is not the same. */
  cost: plannedCostSchema.optional(),
  inputTokenBound: z.int(),
  /** Of one answer. */
  maxOutputTokens: z.int(),
  /** How many answers; left out: one. */
  choices: z.int().optional(),
  /** How the bound of the prompt was found, and what else the hold rests on; left out in the oldest plans. */
  bound: z
    .object({
      by: z.enum(['tokenizer', 'bytes', 'context']),
      images: z.int().optional(),
      toolUses: z.record(z.string(), z.int()).optional(),
      /** The hold was raised by that much, in parts per million, because its route billed above a hold before. */
      distrustPpm: z.int().optional(),
      /** The output that was asked for, when it was cut to what can be paid. */
      clampedFrom: z.int().optional(),
    })
    .optional(),
  timeoutMs: z.int(),
  firstByteTimeoutMs: z.int().optional(),
  /** False: the upstream model cannot stream, and its answer comes in one piece. */
  streaming: z.boolean().optional(),
  /** True: not all of its output is seen. */
  reasoning: z.boolean().optional(),
  why: z.enum(['first', 'retry', 'fallback']),
  /** The outcome this attempt answers to: what was retried, or what it fell back from. */
  after: z.object({ attempt: z.int(), outcome: z.string() }).nullable(),
  /** `parameter`: the member of the request that the route does not take. */
  skipped: z.array(z.object({ route: z.string(), reason: z.string(), parameter: z.string().optional() })),
})

export type Plan = z.infer<typeof planSchema>

/** Most output tokens that an attempt may use: of all its answers. */
export function outputBoundOf({ maxOutputTokens, choices = 1 }: Pick<Plan, 'maxOutputTokens' | 'choices'>): number {
  return maxOutputTokens * choices
}

/** A plan as it is written. */
export function storedPlan(plan: Plan): unknown {
  const { prices, cost, ...rest } = plan
  return {
    ...rest,
    prices: storedPrices(prices),
    ...(cost && { cost: { ...cost, prices: storedPrices(cost.prices) } }),
  }
}

/** Usage as it is written: what is nothing, and no provider reports everywhere, is left out. */
export function storedUsage(usage: Usage): unknown {
  const { input, cachedInput, cacheWrite, output, reasoning, images, toolUses } = usage
  return {
    input,
    cachedInput,
    output,
    ...(cacheWrite > 0 && { cacheWrite }),
    ...(reasoning > 0 && { reasoning }),
    ...(images > 0 && { images }),
    ...(Object.keys(toolUses).length > 0 && { toolUses }),
  }
}

const choiceSchema = z.object({
  text: z.string(),
  finishReason: z.string().nullable(),
  /** Of the texts that end an answer, the one that did, where its provider tells. */
  stopSequence: z.string().optional(),
  toolCalls: z.array(z.object({ id: z.string(), name: z.string(), arguments: z.string() })).optional(),
})

/** A call's answer. */
export const answerSchema = choiceSchema.extend({
  /** Where several answers were asked for, those behind the first. */
  others: z.array(choiceSchema).optional(),
  /** Of an embedding request: each vector as base64 of its little-endian 32-bit floats. */
  vectors: z.array(z.string()).optional(),
})

export type StoredAnswer = z.infer<typeof answerSchema>

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

export const usageSchema = z
  .object({
    input: z.int(),
    cachedInput: z.int(),
    cacheWrite: z.int().default(0),
    output: z.int(),
    reasoning: z.int().default(0),
    images: z.int().default(0),
    toolUses: z.record(z.string(), z.int()).default({}),
  })
  .nullish()

/** A run's options as stored: chosen by its owner at the start. */
export const runOptionsSchema = z.object({
  onExhausted: z.enum(WHEN_EXHAUSTED),
  mayRepeat: z.int(),
  pauseDeadlineMs: z.int(),
  constraints: constraintsSchema.nullish(),
  tight: tightSchema.default({ policy: 'refuse' }),
  reuse: reuseSchema.nullish(),
  downgrade: downgradeSchema.nullish(),
  limits: runLimitsSchema.nullish(),
  thresholds: z.array(z.int()).default([]),
  wrapUpPercent: z.int().default(0),
})

export type RunOptions = z.infer<typeof runOptionsSchema>

/** The start command of a run, as stored. The oldest ones do not say what was put in. */
export const startBodySchema = z.object({ pockets: pocketsSchema.optional() })

/** What a question may be answered with; null: anything. */
export const choicesSchema = z.array(z.string()).nullable()

/** A key's constraints as stored: null for a key that may use everything. */
export const keyConstraintsSchema = constraintsSchema.nullable()

/** What a key opens. */
export const keyScopesSchema = z.array(z.enum([...KEY_SCOPES, ...OPERATOR_SCOPES]))

/** The limit that paused or ended a run. Amounts are decimal strings in the major unit. */
export const moneyStopSchema = z
  .object({ refusalId: z.string(), limit: z.string(), needed: z.string(), free: z.string(), currency: z.string() })
  .nullable()

/** Below how much of a wallet's money a webhook is told. */
export const lowBalancesSchema = z.array(
  z.object({ balanceClass: z.enum(BALANCE_CLASSES), currency: z.string(), belowNano: nano }),
)

/** How a lot of credit is drawn, of a deposit that waits. */
export const lotTermsSchema = z
  .object({ source: z.string(), priority: z.int(), expiresAt: z.coerce.date().nullable() })
  .nullable()
