import type { Scope } from '#db/database.ts'
import { billedShareOf } from '#db/lost-cost.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'
import { shareOf, type HoldShare } from './margin.ts'

/**
 * What an attempt is booked at whose answer died with its process. `maximum`: its whole hold. `estimate`: the share of its
 * hold that the provider billed of others on the same route in the same run, once enough are known.
 */
export type LostCostPolicy = 'maximum' | 'estimate'

export interface LostCost {
  readonly amount: bigint
  readonly certainty: 'unknown' | 'estimated'
  /** On what the amount rests, kept with the attempt. */
  readonly basis: string
  /** What it is of its hold; null: all of it. */
  readonly share: HoldShare | null
}

/** Fewer attempts than these say nothing. */
const MIN_ATTEMPTS = 5n

export async function lostCostOf(
  db: Kysely<Database>,
  scope: Scope,
  lost: {
    readonly callId: string
    readonly number: number
    readonly held: bigint
    readonly policy: LostCostPolicy
  },
): Promise<LostCost> {
  const whole: LostCost = { amount: lost.held, certainty: 'unknown', basis: 'the whole hold', share: null }
  if (lost.policy === 'maximum') return whole
  const share = await billedShareOf(db, scope, lost)
  if (share.attempts < MIN_ATTEMPTS || share.held === 0n) return whole
  const basis = `${share.attempts} billed attempts of the run on its route: ${share.charged} of ${share.held} held`
  return { amount: shareOf(lost.held, share), certainty: 'estimated', basis, share }
}
