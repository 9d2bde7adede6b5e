import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { expectVerified } from '../support/open-attempt.ts'
import { forever, holdOf, openCalls, pocketOf, settlementOf, startProcess } from '../support/storm.ts'
import { createWorld } from '../support/world.ts'

const IDS = 50
/** Half of the 6,400 calls hold, half settle. */
const PAIRS = 3_200

test('6,400 holds and settlements of 50 attempts, from four processes at once, have 50 effects', async () => {
  const world = await createWorld()
  const processes = await Promise.all(Array.from({ length: 4 }, () => startProcess(world.database.appUrl)))
  const runs = await Promise.all(
    Array.from({ length: 5 }, async () => {
      const run = await world.openRun({ direct: 1_000_000n })
      const calls = await openCalls(world.db, world.scope, { ...run, count: IDS / 5 })
      return { calls, pocket: await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' }) }
    }),
  )
  const targets = runs.flatMap(({ calls, pocket }) => calls.map((call) => ({ call, pocket })))
  const answers = await Promise.all(
    Array.from({ length: PAIRS }, async (_, index) => {
      const target = targets[index % IDS]
      const process = processes[Math.floor(index / IDS) % processes.length]
      if (!target || !process) throw new Error('no target')
      const reserved = await process.queue.reserve(target.pocket, holdOf(target.call, 1_000n), forever())
      const settled = await process.queue.settle(target.pocket, settlementOf(target.call, 700n, { answer: 'done' }))
      return { reserved, settled }
    }),
  )
  expect(answers.filter(({ reserved }) => reserved.verdict === 'granted' && !reserved.replayed)).toHaveLength(IDS)
  expect(answers.filter(({ settled }) => settled.verdict === 'settled').length).toBe(IDS)
  expect(answers.filter(({ settled }) => settled.verdict === 'replayed').length).toBe(PAIRS - IDS)
  const { rows } = await sql<{ code: string; count: bigint; amount: bigint }>`
    select code, count(*) as count, sum(amount)::bigint as amount from transfer where code in ('hold', 'capture', 'void')
    group by code order by code`.execute(world.db)
  expect(rows).toEqual([
    { code: 'capture', count: 50n, amount: 35_000n },
    { code: 'hold', count: 50n, amount: 50_000n },
  ])
  const { rows: told } = await sql<{
    told: bigint
  }>`select count(*) as told from event where kind = 'attempt.settled'`.execute(world.db)
  expect(told[0]?.told).toBe(50n)
  await expectVerified(world)
})
