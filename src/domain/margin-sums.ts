import type { Currency, Nano } from './money.ts'

/** What tells one line of a margin report from another; null where lines are not told apart by it. */
export interface MarginKey {
  readonly projectId: string | null
  readonly model: string | null
  readonly route: string | null
  readonly provider: string | null
  readonly upstreamModel: string | null
  /** Of the calendar in UTC, such as `2026-11`. */
  readonly month: string | null
}

/** What attempts were sold for, and what of it was above their cost. In nano of the currency that they were paid in. */
export interface MarginSums extends MarginKey {
  readonly currency: Currency
  readonly attempts: number
  readonly sell: Nano
  readonly margin: Nano
  /** What providers bill in other currencies for it; its worth is in the cost as well. */
  readonly billed: Readonly<Record<Currency, Nano>>
}

export type MarginGroup = 'project' | 'model' | 'route' | 'month'

/** Adds up lines that differ only in what is not asked for. */
export function groupMargins(lines: readonly MarginSums[], by: ReadonlySet<MarginGroup>): readonly MarginSums[] {
  const groups = new Map<string, MarginSums>()
  for (const line of lines) {
    const key: MarginKey = {
      projectId: by.has('project') ? line.projectId : null,
      model: by.has('model') ? line.model : null,
      route: by.has('route') ? line.route : null,
      provider: by.has('route') ? line.provider : null,
      upstreamModel: by.has('route') ? line.upstreamModel : null,
      month: by.has('month') ? line.month : null,
    }
    const name = JSON.stringify([key, line.currency])
    const known = groups.get(name)
    groups.set(name, known ? plus(known, line) : { ...line, ...key })
  }
  return [...groups].toSorted(([left], [right]) => (left < right ? -1 : 1)).map(([, sums]) => sums)
}

function plus(left: MarginSums, right: MarginSums): MarginSums {
  const billed = { ...left.billed }
  for (const [currency, nano] of Object.entries(right.billed)) billed[currency] = (billed[currency] ?? 0n) + nano
  return {
    ...left,
    attempts: left.attempts + right.attempts,
    sell: left.sell + right.sell,
    margin: left.margin + right.margin,
    billed,
  }
}
