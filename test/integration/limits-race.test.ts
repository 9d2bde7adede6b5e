import { recallLeases } from '#db/lease.ts'
import { expect, test } from 'vitest'
import { createLimitWorld, windowOf } from '../support/limits.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { deadlocksOf, forever, holdOf, openCalls, pocketOf, settlementOf, startProcess } from '../support/storm.ts'

const CALLS = 120
const TOKENS_HELD = 10n
const TOKENS_USED = 4n

test('two processes count on the leases of one envelope from both of its pockets, and none of it is lost', async () => {
  const world = await createLimitWorld()
  const limits = await Promise.all([
    world.limit({ measure: 'tokens', currency: null, period: 'life', cap: TOKENS_HELD * BigInt(2 * CALLS) }),
    world.limit({ measure: 'calls', currency: null, period: 'life', cap: 2n * BigInt(CALLS) }),
  ])
  const run = await world.openRun({ direct: 1_000_000n, credit: 1_000_000n })
  const processes = await Promise.all(['direct', 'credit'].map(() => startProcess(world.database.appUrl)))
  const pockets = await Promise.all(
    (['direct', 'credit'] as const).map((balanceClass) => pocketOf(world.db, world.scope, { ...run, balanceClass })),
  )
  const calls = await openCalls(world.db, world.scope, { ...run, count: 2 * CALLS })

  const verdicts = await Promise.all(
    calls.map(async (call, index) => {
      const pocket = pockets[index % 2]
      const queue = processes[Math.floor(index / 2) % 2]?.queue
      if (!pocket || !queue) throw new Error('no pocket')
      const held = await queue.reserve(pocket, holdOf(call, 5n, { tokens: TOKENS_HELD }), forever())
      const settled = await queue.settle(pocket, { ...settlementOf(call, 3n), tokens: TOKENS_USED })
      if (index % 20 === 0) await recallLeases(world.db)
      return `${held.verdict} ${settled.verdict}`
    }),
  )
  expect(new Set(verdicts)).toEqual(new Set(['granted settled']))
  const [tokens, counted] = await Promise.all(limits.map((id) => windowOf(world, id)))
  expect(tokens).toMatchObject({ used: TOKENS_USED * BigInt(2 * CALLS), held: 0n })
  expect(counted).toMatchObject({ used: BigInt(2 * CALLS), held: 0n })
  expect(await deadlocksOf(world.db)).toBe(0n)
  await expectVerified(world)
})
