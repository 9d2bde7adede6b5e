import { z } from 'zod'
import { type Prices, parsePrices } from './bill.ts'
import { parseFaultRules } from './fault-rules.ts'
import type { FaultRule } from './faults.ts'

const settingsShape = {
  delayFirstByteMs: z.number().min(0),
  /** 0 for as fast as it goes. */
  tokensPerSecond: z.number().min(0),
  /** Hidden reasoning before each answer, counted as output. */
  reasoningTokens: z.int().min(0),
  /** Sends the reasoning too, as `reasoning_content`. */
  streamsReasoning: z.boolean(),
  /** Beginnings of prompts that were seen before are cached input. */
  cache: z.boolean(),
}
const settingsSchema = z.strictObject(settingsShape)

/** What of a model may change while it serves. */
export type ModelSettings = Readonly<z.infer<typeof settingsSchema>>

const DEFAULT_SETTINGS: ModelSettings = {
  delayFirstByteMs: 0,
  tokensPerSecond: 0,
  reasoningTokens: 0,
  streamsReasoning: false,
  cache: false,
}

const modelSchema = z.strictObject({
  prices: z.unknown(),
  faults: z.unknown().optional(),
  kind: z.enum(['chat', 'embedding']).default('chat'),
  /** Prompt and answer together may take no more. */
  contextTokens: z.int().positive().default(128_000),
  /** The longest answer, also when the request sets no limit. */
  maxOutputTokens: z.int().positive().default(4096),
  /** `quotes` reads and answers; `echo` gives the beginning of the last message back, at little cost. */
  answers: z.enum(['quotes', 'echo']).default('quotes'),
  tools: z.boolean().default(true),
  vision: z.boolean().default(true),
  /** An image counts as so many tokens, whatever it shows. */
  imageTokens: z.int().min(0).default(85),
  /** Of a vector, when the request asks for no number. */
  dimensions: z.int().min(1).max(4096).default(256),
  ...z.strictObject(settingsShape).partial().shape,
})

export interface SandboxModel extends Readonly<
  Omit<z.infer<typeof modelSchema>, 'prices' | 'faults' | keyof ModelSettings>
> {
  readonly name: string
  readonly prices: Prices
  readonly faults: readonly FaultRule[]
  readonly settings: ModelSettings
}

const configSchema = z.strictObject({
  /** What the prices are in and the bill is made out in. */
  currency: z
    .string()
    .regex(/^[A-Z]{3}$/u, 'three capital letters')
    .default('USD'),
  models: z.record(z.string(), z.unknown()),
})

export interface SandboxConfig {
  readonly currency: string
  readonly models: ReadonlyMap<string, SandboxModel>
}

/** Reads `{ "currency"?, "models": { "<name>": { "prices", … } } }`; the error names what is wrong. */
export function parseConfig(value: unknown): SandboxConfig {
  const { currency, models } = parse(configSchema, value)
  return { currency, models: new Map(Object.entries(models).map(([name, model]) => [name, parseModel(name, model)])) }
}

function parseModel(name: string, value: unknown): SandboxModel {
  try {
    if (/[!:]/u.test(name)) throw new TypeError('its name must be without ! and :, which begin the words of a fault')
    const { prices, faults, ...model } = parse(modelSchema, value)
    return {
      ...model,
      name,
      prices: parsePrices(prices),
      faults: faults === undefined ? [] : parseFaultRules(faults),
      settings: merge(DEFAULT_SETTINGS, model),
    }
  } catch (error) {
    throw new TypeError(`model ${name}: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
  }
}

/** Settings in place of those that a model has; what is left out stays. */
export function parseSettings(value: unknown, settings: ModelSettings): ModelSettings {
  return merge(settings, parse(settingsSchema.partial(), value))
}

function merge(
  settings: ModelSettings,
  change: { readonly [Name in keyof ModelSettings]?: ModelSettings[Name] | undefined },
): ModelSettings {
  return {
    delayFirstByteMs: change.delayFirstByteMs ?? settings.delayFirstByteMs,
    tokensPerSecond: change.tokensPerSecond ?? settings.tokensPerSecond,
    reasoningTokens: change.reasoningTokens ?? settings.reasoningTokens,
    streamsReasoning: change.streamsReasoning ?? settings.streamsReasoning,
    cache: change.cache ?? settings.cache,
  }
}

function parse<Output>(schema: z.ZodType<Output>, value: unknown): Output {
  const parsed = schema.safeParse(value)
  if (!parsed.success) throw new TypeError(z.prettifyError(parsed.error))
  return parsed.data
}
