import { expect } from 'vitest'
import { expectVerified } from './open-attempt.ts'
import type { World } from './world.ts'

/** No pocket has or holds anything, and the ledger is right. */
export async function expectAllHome(world: Pick<World, 'db'>): Promise<void> {
  const rows = await world.db.selectFrom('account').selectAll().where('kind', '=', 'pocket').execute()
  expect(rows.filter((row) => row.posted_credit !== row.posted_debit || row.pending_debit !== 0n)).toEqual([])
  await expectVerified(world)
}
