import type { Certainty } from '#contracts/names.ts'
import type { PlannedCost } from '#contracts/stored.ts'
import type { Margin } from '#db/hold.ts'
import { ceilDivide } from '#domain/money.ts'
import { chargeOf, type Usage } from '#domain/pricing.ts'
import { convertedCost } from '#domain/selling.ts'

/** A part of a hold: `charged` of `held`. */
export interface HoldShare {
  readonly charged: bigint
  readonly held: bigint
}

/** What an attempt's charge rests on: its usage, a part of its hold, or all of that. */
export type ChargeBasis =
  | { readonly usage: Usage; readonly certainty: Certainty }
  | { readonly share: HoldShare }
  | 'whole_hold'

/**
 * What an attempt cost the seller, from the same that its charge is made from: an estimate is no more than was expected to
 * be billed at most, a bill is what it is. Undefined where what is paid is what is billed.
 */
export function marginOf(
  cost: PlannedCost | undefined,
  basis: ChargeBasis,
  idsOf: () => Pick<Margin, 'marginId' | 'soldId' | 'boughtId'>,
): Margin | undefined {
  if (!cost) return undefined
  const billed = costOf(cost, basis)
  return {
    ...idsOf(),
    cost: billed,
    currency: cost.currency,
    converted: convertedCost(billed, cost.quote),
    quoteId: cost.quote?.id ?? null,
  }
}

function costOf(cost: PlannedCost, basis: ChargeBasis): bigint {
  if (basis === 'whole_hold') return cost.held
  const amount = 'share' in basis ? shareOf(cost.held, basis.share) : chargeOf(cost.prices, basis.usage)
  return 'certainty' in basis && basis.certainty === 'billed' ? amount : smaller(amount, cost.held)
}

/** The same part of another hold, rounded up. */
export function shareOf(held: bigint, share: HoldShare): bigint {
  return smaller(ceilDivide(held * share.charged, share.held), held)
}

function smaller(left: bigint, right: bigint): bigint {
  return left < right ? left : right
}
