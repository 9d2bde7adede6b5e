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

/** models.dev prices a million tokens: ten to the power of so much is nano. */
const PER_MILLION = 9
const OVER_200K = 200_000

const KEYS: Readonly<Record<Component, string>> = Object.freeze({
  input: 'input',
  cachedInput: 'cache_read',
  cacheWrite: 'cache_write',
  output: 'output',
  reasoning: 'reasoning',
})

type Cost = ReadonlyMap<string, unknown>

/** The models of models.dev's `api.json`: by provider, then by model. */
export function* modelsDevModels(file: ReadonlyMap<string, unknown>): Generator<ListedModel> {
  for (const [provider, value] of file) {
    for (const [upstreamModel, model] of membersOf(membersOf(value)?.get('models')) ?? []) {
      const cost = membersOf(membersOf(model)?.get('cost'))
      yield { provider, upstreamModel, read: () => readCost(cost) }
    }
  }
}

function readCost(cost: Cost | undefined) {
  const base = cost && readTokens(cost)
  if (!cost || base?.input === undefined) throw new UnreadablePrice('has no price')
  const tiers = tiersOf(cost)
  return {
    ...tokensOf(base),
    ...(tiers.length > 0 && {
      tiers: tiers.map(([aboveInputTokens, tier]) => ({ aboveInputTokens, ...tokensOf(tierFrom(base, tier)) })),
    }),
  }
}

/** `context_over_200k` says in older files what `tiers` says in newer ones. */
function tiersOf(cost: Cost): readonly (readonly [number, ListedTokens])[] {
  const listed = cost.get('tiers')
  if (!Array.isArray(listed)) {
    const over = membersOf(cost.get('context_over_200k'))
    return over ? [[OVER_200K, readTokens(over)]] : []
  }
  return listed
    .map((each: unknown) => {
      const tier = membersOf(each)
      const bound = membersOf(tier?.get('tier'))
      const size = nanoFrom(bound?.get('size'), { places: 0, name: 'tier.size' })
      const type = bound?.get('type') ?? 'context'
      if (!tier || size === undefined || type !== 'context') throw new UnreadablePrice('has a tier by something else')
      return [Number(size), readTokens(tier)] as const
    })
    .toSorted(([left], [right]) => left - right)
}

function readTokens(cost: Cost): ListedTokens {
  return Object.fromEntries(
    COMPONENTS.flatMap((component) => {
      const nano = nanoFrom(cost.get(KEYS[component]), { places: PER_MILLION, name: KEYS[component] })
      return nano === undefined ? [] : [[component, nano]]
    }),
  )
}
