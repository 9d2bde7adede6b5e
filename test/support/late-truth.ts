import { correct, type Correction, type CorrectVerdict } from '#db/correction.ts'
import type { ReserveItem } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { closeEnvelope } from '#db/ledger.ts'
import { sql } from 'kysely'
import { expect } from 'vitest'
import type { Purse } from './envelopes.ts'
import type { World } from './world.ts'

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

/** Says, under new ids, what an attempt of a pocket truly cost. */
export function tell(world: World, purse: Purse, item: ReserveItem, amount: bigint): Promise<CorrectVerdict> {
  return correct(world.db, purse.pocket, truthOf(item, amount))
}

/** What the project owes. */
export async function debtOf(world: World, currency: string): Promise<bigint> {
  const { rows } = await sql<{ debt: bigint }>`
    select project_debt(${world.scope.projectId}, ${currency}) as debt`.execute(world.db)
  return rows[0]?.debt ?? -1n
}

export async function end(world: World, { envelopeId }: Purse): Promise<void> {
  expect(await closeEnvelope(world.db, world.scope, { envelopeId, reason: 'test' })).toBe('closed')
}
