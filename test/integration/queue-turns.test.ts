import { connectDatabase } from '#db/database.ts'
import { expect, onTestFinished, test } from 'vitest'
import { createLimitWorld } from '../support/limits.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { forever, holdOf, openCalls, pocketOf, settlementOf, somebodyWaits, startProcess } from '../support/storm.ts'

const POCKETS = 9
const STUCK = 7

test('a pocket that another transaction has locked holds up nobody of other pockets', async () => {
  const world = await createLimitWorld()
  const { queue } = await startProcess(world.database.appUrl)
  const lanes = await Promise.all(
    Array.from({ length: POCKETS }, async () => {
      const run = await world.openRun({ direct: 1_000n })
      const [call] = await openCalls(world.db, world.scope, { ...run, count: 1 })
      if (!call) throw new Error('no call')
      return { pocket: await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' }), call }
    }),
  )
  const reserve = ({ pocket, call }: (typeof lanes)[number]) => queue.reserve(pocket, holdOf(call, 1n), forever())
  await world.admin.query('begin')
  await world.admin.query('select from account where id = $1 for update', [lanes[0]?.pocket.accountId])
  const stuck = lanes.slice(0, STUCK).map(reserve)
  let isStuck = true
  void Promise.all(stuck).then(() => (isStuck = false))
  const watcher = connectDatabase({ url: world.database.adminUrl, maxConnections: 1 })
  onTestFinished(() => watcher.destroy())
  await somebodyWaits(watcher)
  const others = await Promise.all(lanes.slice(STUCK).map(reserve))
  expect(others.map(({ verdict }) => verdict)).toEqual(['granted', 'granted'])
  expect(isStuck).toBe(true)
  await world.admin.query('commit')
  await Promise.all(stuck)
  await expectVerified(world)
})

test('neither kind waits until the other has run out, in any of two busy pockets', async () => {
  const world = await createLimitWorld()
  const { queue } = await startProcess(world.database.appUrl)
  const lanes = await Promise.all(
    [0, 1].map(async () => {
      const run = await world.openRun({ direct: 1_000_000n })
      const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
      const calls = await openCalls(world.db, world.scope, { ...run, count: 1_600 })
      const held = calls.slice(0, 400)
      await Promise.all(held.map((call) => queue.reserve(pocket, holdOf(call, 1n), forever())))
      return { pocket, held, asked: calls.slice(400) }
    }),
  )
  let left = { settles: 800, reserves: 2_400 }
  const firstOf: string[] = []
  await Promise.all(
    lanes.flatMap(({ pocket, held, asked }, lane) => [
      ...held.map(async (call) => {
        await queue.settle(pocket, settlementOf(call, 1n))
        left = { ...left, settles: left.settles - 1 }
        if (left.reserves > 1_200) firstOf.push(`settles of ${lane}`)
      }),
      ...asked.map(async (call) => {
        await queue.reserve(pocket, holdOf(call, 1n), forever())
        left = { ...left, reserves: left.reserves - 1 }
        if (left.settles > 400) firstOf.push(`holds of ${lane}`)
      }),
    ]),
  )
  expect(new Set(firstOf)).toEqual(new Set(['settles of 0', 'settles of 1', 'holds of 0', 'holds of 1']))
  await expectVerified(world)
})
