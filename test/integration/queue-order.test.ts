import { newId } from '#db/ids.ts'
import { foldLeases } from '#db/lease.ts'
import { retireLimit } from '#db/limit.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { createLimitWorld } from '../support/limits.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { forever, holdOf, openCalls, pocketOf, settlementOf, startProcess } from '../support/storm.ts'
import { createWorld } from '../support/world.ts'

const PER_DAY = { measure: 'calls', currency: null, period: 'day' } as const

test('who waits for the limit of a step is overtaken by calls that it does not bind, and by no other', async () => {
  const world = await createLimitWorld()
  await world.limit({ ...PER_DAY, scope: 'step', step: 'slow', cap: 1n })
  const envelope = await world.openEnvelope()
  const first = await envelope.hold({ path: 'slow/1' })
  const told: string[] = []
  const ask = async (path: string) => {
    const held = await envelope.hold({ path })
    told.push(`${path} ${held.verdict}`)
    return held
  }
  const second = ask('slow/2')
  const third = ask('slow/3')
  for (const name of ['fast/1', 'fast/2', 'fast/3']) {
    expect((await envelope.settle(await ask(name), { amount: 1n })) === 'settled').toBe(true)
  }
  expect(told).toEqual(['fast/1 granted', 'fast/2 granted', 'fast/3 granted'])
  await envelope.settle(first, { amount: null })
  await envelope.settle(await second, { amount: null })
  await envelope.settle(await third, { amount: 1n })
  expect(told.slice(3)).toEqual(['slow/2 granted', 'slow/3 granted'])
  await expectVerified(world)
})

test('an item that makes a batch throw lets nobody be overtaken', async () => {
  const world = await createWorld()
  const { queue } = await startProcess(world.database.appUrl)
  const [run, other] = await Promise.all([world.openRun({ direct: 100n }), world.openRun({ direct: 100n })])
  const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
  const [held, big, small] = await openCalls(world.db, world.scope, { ...run, count: 3 })
  const [poisoned] = await openCalls(world.db, world.scope, { ...other, count: 1 })
  if (!held || !big || !small || !poisoned) throw new Error('no calls')
  await queue.reserve(pocket, holdOf(held, 50n), forever())
  const order: string[] = []
  const asked = [
    queue.reserve(pocket, holdOf(big, 80n), forever()).then(({ verdict }) => order.push(`big ${verdict}`)),
    queue.reserve(pocket, holdOf(small, 10n), forever()).then(({ verdict }) => order.push(`small ${verdict}`)),
  ]
  const theirs = await pocketOf(world.db, world.scope, { ...other, balanceClass: 'direct' })
  const poison = { ...holdOf(poisoned, 5n), holdId: holdOf(held, 50n).holdId }
  expect((await queue.reserve(theirs, poison, forever())).verdict).toBe('mismatch')
  expect(order).toEqual([])
  await queue.settle(pocket, settlementOf(held, null))
  await Promise.all(asked)
  expect(order).toEqual(['big granted', 'small granted'])
  await expectVerified(world)
})

test('what an attempt used of a limit that was retired and folded meanwhile is not lost', async () => {
  const world = await createLimitWorld()
  const limitId = await world.limit({ measure: 'tokens', currency: null, period: 'life' })
  const envelope = await world.openEnvelope()
  const held = await envelope.hold({ tokens: 0n })
  const caller = { keyId: newId(Date.now()), organisationId: world.organisationId, projectId: null }
  await retireLimit(world.db, caller, limitId)
  expect(await foldLeases(world.db)).toBe(1)
  expect(await envelope.settle(held, { amount: 5n, tokens: 50n })).toBe('settled')
  const { rows } = await sql<{ used: bigint }>`select used from folded_lease`.execute(world.db)
  expect(rows).toEqual([{ used: 50n }])
  await expectVerified(world)
})
