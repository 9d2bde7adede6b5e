import { expect, test } from 'vitest'
import { createLedgerWorld, type LedgerWorld, type Purse } from '../support/envelopes.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'

/** Asks until what lies idle has lain long enough to be recalled. */
const granted = (world: LedgerWorld, purse: Purse, amount: bigint) =>
  pollUntil(
    async () => {
      const { item, verdict } = await world.get(purse, amount)
      return verdict === 'granted' && item
    },
    { what: `a hold of ${amount} is granted` },
  )

test('children that share what is left do not wait for what lies idle in one another', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const [one, two] = [await world.openBelow(root, {}), await world.openBelow(root, {})]
  await world.settle(one, await granted(world, one, 40n), 10n)
  await world.settle(two, await granted(world, two, 60n), 50n)
  expect([await world.balance(root), await world.balance(one), await world.balance(two)]).toEqual([
    [0n, 0n],
    [30n, 0n],
    [10n, 0n],
  ])
  const ask = async (purse: Purse) => {
    const item = await world.itemOf(purse, 35n)
    const { signal } = new AbortController()
    return { purse, item, verdict: (await world.queue.reserve(purse.pocket, item, { signal })).verdict }
  }
  const asked = [ask(one), ask(two)]
  const winner = await Promise.race(asked)
  expect(winner.verdict).toBe('granted')
  await world.settle(winner.purse, winner.item, 35n)
  expect((await Promise.all(asked)).map(({ verdict }) => verdict).toSorted()).toEqual(['exhausted', 'granted'])
  await expectVerified(world)
})

test('idle money comes back hop by hop, from wherever it is shared, and never from a budget of its own', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const own = await world.openBelow(root, { amount: 20n, cap: 20n })
  const left = await world.openBelow(root, {})
  const below = await world.openBelow(left, {})
  const right = await world.openBelow(root, {})
  const rightBelow = await world.openBelow(right, {})
  await world.settle(below, await granted(world, below, 50n), 1n)
  const stays = await granted(world, below, 9n)
  expect(await world.balance(below)).toEqual([49n, 9n])
  const item = await granted(world, rightBelow, 65n)
  expect([await world.balance(below), await world.balance(left), await world.balance(root)]).toEqual([
    [14n, 9n],
    [0n, 0n],
    [0n, 0n],
  ])
  expect(await world.balance(own)).toEqual([20n, 0n])
  await world.settle(rightBelow, item, 65n)
  await world.settle(below, stays, null)
  // All that is shared is what lies in `below` now: a parent may have it as well, and nobody may have more.
  await granted(world, right, 14n)
  expect((await world.get(root, 35n)).verdict).toBe('exhausted')
  await expectVerified(world)
})
