import { closeRevokedStanding, closeTree } from '#db/envelope.ts'
import { closeEnvelope } from '#db/ledger.ts'
import { expect, test } from 'vitest'
import { createLedgerWorld, type LedgerWorld, type Purse } from '../support/envelopes.ts'
import { revokeOwnKey } from '../support/keys.ts'
import { debtOf } from '../support/late-truth.ts'
import { expectVerified } from '../support/open-attempt.ts'

test.each([
  { truth: 'void', cost: null, home: 100n },
  { truth: 'free', cost: 0n, home: 100n },
  { truth: 'not free at all', cost: 30n, home: 70n },
])('an envelope stays open for a call that holds nothing, and settles it as $truth', async ({ cost, home }) => {
  const world = await createLedgerWorld()
  const before = await world.walletFree('USD')
  const root = await world.openRoot(100n)
  const child = await world.openBelow(root, { amount: 10n })
  const item = await world.hold(child, 0n)
  expect([await close(world, child), await close(world, root)]).toEqual(['open_holds', 'open_children'])
  const closing = () => closeTree(world.db, world.scope, { envelopeId: root.envelopeId, reason: 'test' })
  expect(await closing()).toBe('open_holds')
  await world.settle(child, item, cost)
  expect(await closing()).toBe('closed')
  expect([await world.walletFree('USD'), await debtOf(world, 'USD')]).toEqual([before - 100n + home, 0n])
  await world.db.updateTable('run').set({ state: 'failed', finished_at: new Date() }).execute()
  await expectVerified(world)
})

test("a revoked key's envelope closes once its calls that hold nothing are resolved", async () => {
  const world = await createLedgerWorld()
  const purse = await world.standing(world.keyId)
  const item = await world.hold(purse, 0n)
  expect(await world.db.transaction().execute((trx) => revokeOwnKey(trx, world.scope, world.keyId))).toMatchObject({
    ok: true,
  })
  expect(await closeRevokedStanding(world.db)).toBe(0)
  await world.settle(purse, item, 0n)
  expect(await closeRevokedStanding(world.db)).toBe(1)
  expect(await world.gateOf(purse)).toEqual(['closed', 'closed'])
  await expectVerified(world)
})

function close(world: LedgerWorld, { envelopeId }: Purse) {
  return closeEnvelope(world.db, world.scope, { envelopeId, reason: 'test' })
}
