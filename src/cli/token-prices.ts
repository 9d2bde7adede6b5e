import type { CatalogPrice } from '#contracts/catalog.ts'
import { parseDecimalExactly, unitsOf } from '#domain/decimal.ts'
import { formatNano, MAX_NANO } from '#domain/money.ts'
import { NumberText } from './json-source.ts'

export const COMPONENTS = ['input', 'cachedInput', 'cacheWrite', 'output', 'reasoning'] as const
export type Component = (typeof COMPONENTS)[number]

/** Prices of tokens in nano per million, as far as a list has them. */
export type ListedTokens = Readonly<Partial<Record<Component, bigint>>>

/** A price in words that a list cannot mean: its model is skipped for it. */
export class UnreadablePrice extends Error {
  override readonly name = 'UnreadablePrice'
}

/** `places`: by how many places a unit of the list is larger than a nano (per million). Undefined when there is none. */
export function nanoFrom(value: unknown, { places, name }: { readonly places: number; readonly name: string }) {
  if (value === undefined || value === null) return undefined
  const decimal = value instanceof NumberText ? parseDecimalExactly(value.text) : undefined
  if (!decimal) throw new UnreadablePrice(`${name} is no price`)
  const nano = unitsOf(decimal, places)
  if (nano > MAX_NANO) throw new UnreadablePrice(`${name} is more than 1000000`)
  return nano
}

/** The prices of a tier: what it does not name costs what it costs below, and as plain input or output where it does there. */
export function tierFrom(base: ListedTokens, tier: ListedTokens): ListedTokens {
  const input = tier.input ?? base.input
  const output = tier.output ?? base.output
  const rest = (component: Component, plain: Component) =>
    tier[component] ?? (base[component] === base[plain] ? undefined : base[component])
  const cachedInput = rest('cachedInput', 'input')
  const cacheWrite = rest('cacheWrite', 'input')
  const reasoning = rest('reasoning', 'output')
  return {
    ...(input !== undefined && { input }),
    ...(cachedInput !== undefined && { cachedInput }),
    ...(cacheWrite !== undefined && { cacheWrite }),
    ...(output !== undefined && { output }),
    ...(reasoning !== undefined && { reasoning }),
  }
}

/** Prices of tokens as a price list of ours has them. */
export function tokensOf(listed: ListedTokens): Pick<CatalogPrice, Component> {
  const text = (component: Component) => {
    const nano = listed[component]
    return nano === undefined ? {} : { [component]: formatNano(nano) }
  }
  return {
    ...text('cachedInput'),
    ...text('cacheWrite'),
    ...text('reasoning'),
    input: formatNano(listed.input ?? 0n),
    output: formatNano(listed.output ?? 0n),
  }
}
