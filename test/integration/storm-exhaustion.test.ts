import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { expectVerified } from '../support/open-attempt.ts'
import { seeded } from '../support/seeded.ts'
import { forever, holdOf, openCalls, pocketOf, settlementOf, startProcess } from '../support/storm.ts'
import { createWorld } from '../support/world.ts'

const CALLERS = 1_000
const UNIT = 1_000_000n
const MONEY = 50n * UNIT

test.each([
  { what: 'of one size', amountOf: () => UNIT },
  { what: 'of many sizes', amountOf: (random: (below: number) => number) => BigInt(1 + random(Number(2n * UNIT))) },
])(
  '1,000 callers $what race for the money of 50: all of it is used, nobody is refused while it fits',
  async (options) => {
    const world = await createWorld()
    const random = seeded(7)
    const run = await world.openRun({ direct: MONEY })
    const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
    const calls = await openCalls(world.db, world.scope, { ...run, count: CALLERS })
    const processes = await Promise.all(Array.from({ length: 3 }, () => startProcess(world.database.appUrl)))
    const results = await Promise.all(
      calls.map(async (call, index) => {
        const amount = options.amountOf(random)
        const share = BigInt(random(4))
        const { queue } = processes[index % processes.length] ?? raise('no process')
        const { verdict } = await queue.reserve(pocket, holdOf(call, amount), forever())
        // A quarter uses nothing and gives its hold back, the others use some of it.
        if (verdict === 'granted' && share === 0n) await queue.settle(pocket, settlementOf(call, null))
        else if (verdict === 'granted')
          await queue.settle(pocket, settlementOf(call, (amount * share) / 3n, { answer: 'done' }))
        return { verdict, amount }
      }),
    )
    const left = await world.db
      .selectFrom('account')
      .select(['posted_credit', 'posted_debit', 'pending_debit'])
      .where('id', '=', pocket.accountId)
      .executeTakeFirstOrThrow()
    const free = left.posted_credit - left.posted_debit
    expect(left.pending_debit).toBe(0n)
    const verdicts = Map.groupBy(results, (result) => result.verdict)
    expect([...verdicts.keys()].toSorted()).toEqual(['exhausted', 'granted'])
    expect((verdicts.get('granted') ?? []).length).toBeGreaterThanOrEqual(50)
    for (const { amount } of verdicts.get('exhausted') ?? []) expect(free).toBeLessThan(amount)
    const { rows } = await sql<{ wrong: bigint; all: bigint }>`
    select count(*) as "all", count(*) filter (where free >= asked or free < 0) as wrong from refusal`.execute(world.db)
    expect(rows[0]).toEqual({ all: BigInt(verdicts.get('exhausted')?.length ?? 0), wrong: 0n })
    await expectVerified(world)
  },
)

function raise(message: string): never {
  throw new Error(message)
}
