import { formatNano } from '#domain/money.ts'
import { membersOf } from './json-source.ts'
import type { ListedModel } from './price-file.ts'
import {
  COMPONENTS,
  nanoFrom,
  tierFrom,
  tokensOf,
  UnreadablePrice,
  type Component,
  type ListedTokens,
} from './token-prices.ts'

/** LiteLLM prices a token: ten to the power of so much is nano per million of them. */
const PER_TOKEN = 15
/** And fees each. */
const PER_UNIT = 9

const KEYS: Readonly<Record<Component, string>> = Object.freeze({
  input: 'input_cost_per_token',
  cachedInput: 'cache_read_input_token_cost',
  cacheWrite: 'cache_creation_input_token_cost',
  output: 'output_cost_per_token',
  reasoning: 'output_cost_per_reasoning_token',
})
const MODES: ReadonlySet<unknown> = new Set(['chat', 'completion', 'responses', 'embedding'])
const ABOVE = /^(.+)_above_(\d+)k_tokens$/

type Entry = ReadonlyMap<string, unknown>

/** The models of LiteLLM's public price map, `model_prices_and_context_window.json`. */
export function* litellmModels(file: ReadonlyMap<string, unknown>): Generator<ListedModel> {
  for (const [key, value] of file) {
    const entry = membersOf(value)
    const provider = entry?.get('litellm_provider')
    if (!entry || typeof provider !== 'string' || key === 'sample_spec') continue
    const upstreamModel = key.startsWith(`${provider}/`) ? key.slice(provider.length + 1) : key
    yield { provider, upstreamModel, read: () => readEntry(entry) }
  }
}

function readEntry(entry: Entry) {
  const mode = entry.get('mode')
  if (!MODES.has(mode)) throw new UnreadablePrice(`is of the mode ${typeof mode === 'string' ? mode : 'none'}`)
  const { base, tiers } = entry.has('tiered_pricing') ? readRanges(entry) : readFlat(entry)
  if (base.input === undefined) throw new UnreadablePrice('is not priced by tokens')
  const perCall = nanoFrom(entry.get('input_cost_per_request'), { places: PER_UNIT, name: 'input_cost_per_request' })
  const perImage = nanoFrom(entry.get('input_cost_per_image'), { places: PER_UNIT, name: 'input_cost_per_image' })
  const fees = Object.entries(feesOf(entry)).flatMap(([tool, fee]) => (fee ? [[tool, formatNano(fee)] as const] : []))
  return {
    ...tokensOf(base),
    ...(perCall && { perCall: formatNano(perCall) }),
    ...(perImage && { perImage: formatNano(perImage) }),
    ...(fees.length > 0 && { toolFees: Object.fromEntries(fees) }),
    ...(tiers.length > 0 && {
      tiers: tiers.map(([aboveInputTokens, tier]) => ({ aboveInputTokens, ...tokensOf(tierFrom(base, tier)) })),
    }),
  }
}

interface TieredTokens {
  readonly base: ListedTokens
  readonly tiers: readonly (readonly [number, ListedTokens])[]
}

function readFlat(entry: Entry): TieredTokens {
  const sizes = new Set([...entry.keys()].flatMap((key) => sizeAbove(key) ?? []))
  const tiers = [...sizes]
    .toSorted((left, right) => left - right)
    .map((size) => [size * 1000, readTokens(entry, `_above_${size}k_tokens`)] as const)
  return { base: readTokens(entry, ''), tiers }
}

/** In thousands of tokens, of a key that prices a component of ours. */
function sizeAbove(key: string): number | undefined {
  const [, component = '', size = ''] = ABOVE.exec(key) ?? []
  return Object.values(KEYS).includes(component) ? Number(size) : undefined
}

function readTokens(entry: Entry, suffix: string): ListedTokens {
  return Object.fromEntries(
    COMPONENTS.flatMap((component) => {
      const name = KEYS[component] + suffix
      const nano = nanoFrom(entry.get(name), { places: PER_TOKEN, name })
      return nano === undefined ? [] : [[component, nano]]
    }),
  )
}

/** Prices by ranges of the prompt's length: above the start of each range but the first. */
function readRanges(entry: Entry): TieredTokens {
  const listed = entry.get('tiered_pricing')
  const ranges = (Array.isArray(listed) ? listed : []).map((each: unknown) => {
    const range = membersOf(each)
    const bounds = range?.get('range')
    const [from]: readonly unknown[] = Array.isArray(bounds) ? bounds : []
    const start = nanoFrom(from, { places: 0, name: 'tiered_pricing' })
    if (!range || start === undefined) throw new UnreadablePrice('tiered_pricing has a range without a start')
    return [Number(start), readTokens(range, '')] as const
  })
  const [first, ...tiers] = ranges.toSorted(([left], [right]) => left - right)
  return { base: { ...readTokens(entry, ''), ...first?.[1] }, tiers }
}

/** A search is billed by how much it reads, which nobody knows before: at the dearest. */
function feesOf(entry: Entry): Readonly<Record<string, bigint | undefined>> {
  const searches = [...(membersOf(entry.get('search_context_cost_per_query'))?.entries() ?? [])].map(([name, value]) =>
    nanoFrom(value, { places: PER_UNIT, name }),
  )
  const maps = entry.get('google_maps_grounding_cost_per_query')
  return {
    web_search: searches.reduce((most, each) => ((each ?? 0n) > (most ?? 0n) ? each : most), undefined),
    google_maps: nanoFrom(maps, { places: PER_UNIT, name: 'google_maps_grounding_cost_per_query' }),
  }
}
