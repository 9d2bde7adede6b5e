import { parseDecimal } from '#domain/money.ts'
import { z } from 'zod'
import { utcMomentSchema } from './instant.ts'
import { BALANCE_CLASSES } from './names.ts'
import { mayBeHandedOn, PARAMETER_NAME } from './parameters.ts'

const name = z.string().regex(/^[a-z0-9][a-z0-9._:/-]{0,99}$/i, 'letters, digits and . _ : / - (at most 100)')

/** What a provider calls a model: some begin with, or name a version behind, an `@`. */
const upstreamName = z
  .string()
  .regex(/^[a-z0-9@][a-z0-9._:/@-]{0,199}$/i, 'letters, digits and . _ : / @ - (at most 200)')

/** A price in the major unit of its currency per 1 000 000 tokens, as a decimal string. */
const pricePerMillion = z
  .string()
  .refine((text) => parseDecimal(text).ok, 'a decimal string in the major unit, at most nine decimals')

export const currencyCode = z.string().regex(/^[A-Z]{3}$/, 'an ISO 4217 code such as USD')

const MOST_PARAMETERS = 64

const parameterName = z
  .string()
  .regex(PARAMETER_NAME, 'the name of a member of requests (at most 64)')
  .refine(mayBeHandedOn, 'is set by Purser itself, or changes what a request costs')

/** What a route's upstream model can do beyond text. */
export const capabilitiesSchema = z.strictObject({
  tools: z.boolean().default(true),
  jsonSchema: z.boolean().default(true),
  vision: z.boolean().default(false),
  streaming: z.boolean().default(true),
  /** It thinks before it answers, and not all of that is seen: an answer that is cut may have cost all its output. */
  reasoning: z.boolean().default(false),
  /** Several answers to one prompt in one request (`n`). */
  choices: z.boolean().default(true),
  /** Further members of requests that it takes, by name; left out: what its provider's API is known to take. */
  parameters: z.array(parameterName).max(MOST_PARAMETERS).optional(),
})

/** What a route bears, over all processes; left out: as much as comes. */
const routeLimitsSchema = z.strictObject({
  requestsPerMinute: z.int().positive().optional(),
  tokensPerMinute: z.int().positive().optional(),
  concurrency: z.int().positive().optional(),
})

const TOKENIZERS = ['o200k_base', 'cl100k_base'] as const

export const routeSchema = z.strictObject({
  name,
  provider: name,
  upstreamModel: upstreamName,
  balanceClass: z.enum(BALANCE_CLASSES),
  /** What the wallet pays in. */
  currency: currencyCode,
  /** What the provider bills in, when that is another currency: it is sold at the quote in force. */
  costCurrency: currencyCode.optional(),
  /** Sold above cost, in basis points (100 = 1 %). */
  markupBps: z.int().min(0).max(1_000_000).default(0),
  /** Its share among the routes of a weighted model. */
  weight: z.int().min(1).max(1_000).default(1),
  capabilities: capabilitiesSchema.prefault({}),
  limits: routeLimitsSchema.prefault({}),
  /** The tokeniser that the upstream model counts with, where that is known; else bytes bound the prompt. */
  tokenizer: z.enum(TOKENIZERS).optional(),
  /** Most tokens that one image of a prompt takes. */
  imageTokens: z.int().positive().default(8_192),
  /** From sending to the first byte of the answer, in milliseconds. */
  firstByteTimeoutMs: z.int().min(100).max(480_000).optional(),
  /** Prompt and answer together, in tokens. */
  contextTokens: z.int().positive(),
  maxOutputTokens: z.int().positive(),
  /** From sending to the last byte, in milliseconds. An activity has nine minutes for an attempt and its settlement. */
  timeoutMs: z.int().min(100).max(480_000),
})

const tierSchema = z.strictObject({
  aboveInputTokens: z.int().positive(),
  input: pricePerMillion,
  cachedInput: pricePerMillion.optional(),
  cacheWrite: pricePerMillion.optional(),
  output: pricePerMillion,
  reasoning: pricePerMillion.optional(),
})

export const priceSchema = z.strictObject({
  provider: name,
  upstreamModel: upstreamName,
  currency: currencyCode,
  input: pricePerMillion,
  cachedInput: pricePerMillion.optional(),
  output: pricePerMillion,
  /** Input that the provider writes into its cache; left out: as input. */
  cacheWrite: pricePerMillion.optional(),
  /** Hidden reasoning; left out: as output. */
  reasoning: pricePerMillion.optional(),
  /** Per call, per image and per use of a provider's own tool, in the major unit. */
  perCall: pricePerMillion.optional(),
  perImage: pricePerMillion.optional(),
  toolFees: z.record(z.string().regex(/^[a-z0-9_]{1,64}$/), pricePerMillion).optional(),
  /** Prices of a request whose prompt has more tokens than that: of all its tokens. By rising threshold. */
  tiers: z
    .array(tierSchema)
    .max(16)
    .refine(
      (tiers) => tiers.every((tier, index) => tier.aboveInputTokens > (tiers[index - 1]?.aboveInputTokens ?? 0)),
      'each tier begins above the one before it',
    )
    .optional(),
  /** From when on it is in force; left out: from its import on. */
  effectiveAt: utcMomentSchema.optional(),
})

export const catalogModelSchema = z.strictObject({
  name,
  kind: z.enum(['chat', 'embedding']).default('chat'),
  /** `ordered`: the first route that can serve. `weighted`: by shares, the others as fallbacks. */
  strategy: z.enum(['ordered', 'weighted']).default('ordered'),
  routes: z.array(routeSchema).min(1).max(16),
})

/** The shape of a catalog; `checkCatalog` looks at it as a whole. */
export const catalogShape = z.strictObject({
  models: z.array(catalogModelSchema).min(1).max(500),
  prices: z.array(priceSchema).max(5000),
})

/** The whole catalog: validated as one document, kept in immutable versions. */
export const catalogSchema = catalogShape.superRefine((catalog, context) => {
  const seen = new Set<string>()
  for (const model of catalog.models) {
    const names = [model.name, ...model.routes.map((route) => `${model.name} › ${route.name}`)]
    for (const each of names) {
      if (seen.has(each)) context.addIssue({ code: 'custom', message: `${each} stands twice` })
      seen.add(each)
    }
  }
})

export type Route = z.infer<typeof routeSchema>
/** A route as people write it. */
export type CatalogRoute = z.input<typeof routeSchema>
export type CatalogModel = z.infer<typeof catalogModelSchema>
export type Catalog = z.infer<typeof catalogSchema>
/** A catalog as people write it, without what has a default. */
export type CatalogDocument = z.input<typeof catalogSchema>
export type CatalogPrice = z.infer<typeof priceSchema>
