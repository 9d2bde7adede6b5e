import type { Correction } from '#db/hold.ts'
import { newId } from '#db/ids.ts'

/** What is said, after an attempt was resolved, of what it truly cost, in nano: under ids of its own each time. */
export function truthOf({ holdId }: { readonly holdId: string }, amount: bigint): Correction {
  return {
    holdId,
    correctionId: newId(Date.now()),
    debtId: newId(Date.now()),
    amount,
    tokens: 1n,
    certainty: 'estimated',
    usage: null,
    detail: null,
    answerId: null,
    answer: null,
  }
}
