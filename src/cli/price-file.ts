import { priceSchema, type CatalogPrice } from '#contracts/catalog.ts'
import { membersOf, parseWithSources } from './json-source.ts'
import { litellmModels } from './price-file-litellm.ts'
import { modelsDevModels } from './price-file-models-dev.ts'
import { UnreadablePrice, type Component } from './token-prices.ts'

/** A model as a list names it. `read` throws `UnreadablePrice` when its price is none of ours. */
export interface ListedModel {
  readonly provider: string
  readonly upstreamModel: string
  readonly read: () => Pick<CatalogPrice, Component | 'perCall' | 'perImage' | 'toolFees' | 'tiers'>
}

export interface PriceFileOptions {
  /** Names of the file's providers with ours; none: all of them, as the file calls them. */
  readonly providers: ReadonlyMap<string, string>
  /** Upstream models; none: all of them. */
  readonly only: ReadonlySet<string>
  /** Takes what costs nothing as well: often that only says that nobody knows. */
  readonly free: 'take' | 'skip'
  readonly effectiveAt: string | undefined
}

export interface PriceFile {
  readonly prices: readonly CatalogPrice[]
  readonly skipped: readonly { readonly name: string; readonly reason: string }[]
}

/** Both lists say what is billed in this. */
const CURRENCY = 'USD'

/**
 * Reads LiteLLM's price map or models.dev's `api.json`, which are told apart by their shape. Numbers are taken as they are
 * written there, never as floats; what is finer than a nano per million tokens is rounded up.
 *
 * @throws Error when the file is neither
 */
export function readPriceFile(text: string, options: PriceFileOptions): PriceFile {
  const prices = new Map<string, CatalogPrice>()
  const skipped: { name: string; reason: string }[] = []
  for (const model of modelsOf(text)) {
    if (!isWanted(model, options)) continue
    const name = `${model.provider} ${model.upstreamModel}`
    const provider = options.providers.get(model.provider) ?? model.provider
    const price = priceOf({ ...model, provider }, options)
    if (typeof price === 'string') {
      skipped.push({ name, reason: price })
      continue
    }
    const known = prices.get(`${price.provider} ${price.upstreamModel}`)
    if (!known) prices.set(`${price.provider} ${price.upstreamModel}`, price)
    else if (JSON.stringify(known) !== JSON.stringify(price))
      skipped.push({ name, reason: 'stands twice, at two prices: the first one is taken' })
  }
  return { prices: [...prices.values()], skipped }
}

function modelsOf(text: string): Iterable<ListedModel> {
  const file = membersOf(parseFile(text))
  const entries = [...(file?.values() ?? [])].map((value) => membersOf(value))
  if (file && entries.some((entry) => membersOf(entry?.get('models')))) return modelsDevModels(file)
  if (file && entries.some((entry) => entry?.has('litellm_provider'))) return litellmModels(file)
  throw new Error(
    'The file is no price list that is known: neither LiteLLM’s model_prices_and_context_window.json nor models.dev’s api.json.',
  )
}

function parseFile(text: string): unknown {
  try {
    return parseWithSources(text)
  } catch (error) {
    throw new Error(`The file is no JSON: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
  }
}

function isWanted({ provider, upstreamModel }: ListedModel, { providers, only }: PriceFileOptions): boolean {
  return (providers.size === 0 || providers.has(provider)) && (only.size === 0 || only.has(upstreamModel))
}

/** The price, or why the model is skipped. */
function priceOf({ provider, upstreamModel, read }: ListedModel, options: PriceFileOptions): CatalogPrice | string {
  try {
    const { effectiveAt } = options
    const parsed = priceSchema.safeParse({
      provider,
      upstreamModel,
      currency: CURRENCY,
      ...read(),
      ...(effectiveAt !== undefined && { effectiveAt }),
    })
    if (!parsed.success)
      return parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ')
    if (options.free === 'skip' && isFree(parsed.data)) return 'costs nothing by this list: --free takes it'
    return parsed.data
  } catch (error) {
    if (error instanceof UnreadablePrice) return error.message
    throw error
  }
}

const NOTHING = /^0(\.0+)?$/

function isFree({ input, output, perCall = '0', perImage = '0' }: CatalogPrice): boolean {
  return [input, output, perCall, perImage].every((amount) => NOTHING.test(amount))
}
