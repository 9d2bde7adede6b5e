import { settle, type ReserveItem } from '#db/hold.ts'
import { expect, test } from 'vitest'
import { createLedgerWorld, type LedgerWorld, type Purse } from '../support/envelopes.ts'
import { debtOf, end, tell } from '../support/late-truth.ts'
import { expectVerified, resolution } from '../support/open-attempt.ts'
import { expectLotsTrue, grantLot, letExpire } from '../support/wallets.ts'

const EUR = { currency: 'EUR' } as const

test('what a child spent beyond its hold is fetched from the remainders above it, hop by hop, and nothing is owed', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const middle = await world.openBelow(root, { amount: 20n })
  const leaf = await world.openBelow(middle, { amount: 15n })
  const item = await world.hold(leaf, 10n)
  await world.settle(leaf, item, 60n)
  expect(await balances(world, root, middle, leaf)).toEqual([40n, 0n, 0n])
  expect(await debtOf(world, 'USD')).toBe(0n)
  await expectVerified(world)
})

test('only what the whole tree lacks is owed, and no hold of it is touched', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const child = await world.openBelow(root, { amount: 30n })
  const sibling = await world.openBelow(root, { amount: 20n })
  const [item, held] = [await world.hold(child, 25n), await world.hold(root, 40n)]
  await world.settle(child, item, 100n)
  expect(await balances(world, root, child, sibling)).toEqual([40n, 0n, 20n])
  expect(await debtOf(world, 'USD')).toBe(60n)
  await world.settle(root, held, 40n)
  await expectVerified(world)
})

test('an overage that was fetched is settled once: asked again it is a replay, and a mismatch with another amount', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const child = await world.openBelow(root, { amount: 30n })
  const item = await world.hold(child, 30n)
  const tell = async (amount: bigint) =>
    (await settle(world.db, child.pocket, { item: costing(item, amount), mode: 'owner' })).verdict
  expect([await tell(50n), await tell(50n), await tell(51n), await tell(30n)]).toEqual([
    'settled',
    'replayed',
    'mismatch',
    'mismatch',
  ])
  expect(await balances(world, root, child)).toEqual([50n, 0n])
  await expectVerified(world)
})

test('a cap bounds what a child may ask for, not what it has spent: its parent pays, and lends it nothing more', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const child = await world.openBelow(root, { amount: 10n, cap: 30n })
  const item = await world.hold(child, 10n)
  await world.settle(child, item, 25n)
  expect((await world.get(child, 6n)).verdict).toBe('exhausted')
  const { item: next, verdict } = await world.get(child, 5n)
  expect(verdict).toBe('granted')
  await world.settle(child, next, 55n)
  expect([await balances(world, root, child), await debtOf(world, 'USD')]).toEqual([[20n, 0n], 0n])
  expect((await world.get(child, 1n)).verdict).toBe('exhausted')
  await expectVerified(world)
})

test("what a key's call spent beyond its hold is fetched from the wallet, and from other keys' idle money", async () => {
  const world = await createLedgerWorld()
  const [one, two] = [await world.standing(world.keyId, EUR), await world.standing(await world.makeKey(), EUR)]
  await world.deposit('EUR', 100n)
  await world.settle(two, (await world.get(two, 60n)).item, null)
  const { item } = await world.get(one, 10n)
  await world.settle(one, item, 95n)
  expect([await world.walletFree('EUR'), await debtOf(world, 'EUR')]).toEqual([5n, 0n])
  expect(await balances(world, one, two)).toEqual([0n, 0n])
  const { item: more } = await world.get(one, 5n)
  await world.settle(one, more, 25n)
  expect([await world.walletFree('EUR'), await debtOf(world, 'EUR')]).toEqual([0n, 20n])
  await expectVerified(world)
})

test("a child of a key's envelope spends, beyond its hold, what the wallet has", async () => {
  const world = await createLedgerWorld()
  const purse = await world.standing(world.keyId)
  const { item } = await world.get(purse, 10n)
  const before = (await world.walletFree('USD')) + (await world.balance(purse))[0]
  const child = await world.openBelow(purse, { cap: 5n })
  const { item: call } = await world.get(child, 5n)
  await world.settle(child, call, before)
  expect([await world.walletFree('USD'), await debtOf(world, 'USD')]).toEqual([0n, 10n])
  expect(await balances(world, purse, child)).toEqual([10n, 0n])
  await world.settle(purse, item, 10n)
  await expectVerified(world)
})

test('an overage is not paid from credit that is due', async () => {
  const world = await createLedgerWorld()
  const { lotId } = await grantLot(world, 100n)
  const purse = await world.standing(world.keyId, { ...EUR, balanceClass: 'credit' })
  const { item } = await world.get(purse, 10n)
  const free = (await world.balance(purse))[0] - 10n
  await letExpire(world, lotId)
  await world.settle(purse, item, 10n + free + 5n)
  expect([await world.balance(purse), await debtOf(world, 'EUR')]).toEqual([[0n, 0n], 5n])
  await expectLotsTrue(world)
})

test('late truth about a closed child is paid by the envelopes above it, beyond its cap, and goes back to who paid', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const middle = await world.openBelow(root, { amount: 30n, cap: 40n })
  const child = await world.openBelow(middle, { amount: 20n, cap: 20n })
  const item = await world.hold(child, 20n)
  await world.settle(child, item, 10n)
  await end(world, child)
  expect(await tell(world, child, item, 95n)).toBe('corrected')
  expect([await balances(world, root, middle), await debtOf(world, 'USD')]).toEqual([[5n, 0n], 0n])
  expect(await tell(world, child, item, 110n)).toBe('corrected')
  expect([await balances(world, root, middle), await debtOf(world, 'USD')]).toEqual([[0n, 0n], 10n])
  await expectVerified(world)
  expect(await tell(world, child, item, 70n)).toBe('corrected')
  expect([await balances(world, root, middle), await debtOf(world, 'USD')]).toEqual([[30n, 0n], 0n])
  expect(await tell(world, child, item, 0n)).toBe('corrected')
  expect(await balances(world, root, middle)).toEqual([60n, 40n])
  expect((await world.get(middle, 41n)).verdict).toBe('exhausted')
  await expectVerified(world)
})

test('late truth is paid from the tree, or the wallet of a key, while its own envelope is open too', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const child = await world.openBelow(root, { amount: 20n, cap: 20n })
  const item = await world.hold(child, 20n)
  await world.settle(child, item, 15n)
  expect(await tell(world, child, item, 60n)).toBe('corrected')
  expect(await balances(world, root, child)).toEqual([40n, 0n])
  await world.deposit('EUR', 100n)
  const [one, two] = [await world.standing(world.keyId, EUR), await world.standing(await world.makeKey(), EUR)]
  const { item: call } = await world.get(one, 10n)
  await world.settle(one, call, 10n)
  await world.settle(two, (await world.get(two, 20n)).item, null)
  expect(await tell(world, one, call, 130n)).toBe('corrected')
  expect([await world.walletFree('EUR'), await debtOf(world, 'EUR')]).toEqual([0n, 30n])
  await expectVerified(world)
})

function costing({ runId, callId, attempt, holdId }: ReserveItem, amount: bigint) {
  return resolution({ runId, callId, number: attempt, holdId }, amount)
}

async function balances(world: LedgerWorld, ...purses: readonly Purse[]): Promise<readonly bigint[]> {
  return Promise.all(purses.map(async (purse) => (await world.balance(purse))[0]))
}
