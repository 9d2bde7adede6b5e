import type { RunningEngine } from '#calls/start-engine.ts'
import { isBusy } from '#db/verify-lookup.ts'
import { verifyLedger } from '#db/verify.ts'
import { expect, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { createLimitWorld } from '../support/limits.ts'
import { tellMoneyStory } from '../support/money-story.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { forever, holdOf, openCalls, pocketOf, settlementOf, startProcess } from '../support/storm.ts'
import { WITHOUT_CHECKS } from '../support/tamper.ts'
import { createWorld, type World } from '../support/world.ts'

/** What is looked at in the tables of calls, and what is wrong with it then. */
const EDITS = [
  { table: 'attempt', change: `update attempt set held = held + 1`, check: 'attempts', says: 'its hold is another' },
  {
    table: 'attempt',
    change: `update attempt set outcome = 'lost'`,
    check: 'attempts',
    says: 'is lost, and its cost is known',
  },
  {
    table: 'attempt',
    change: `update attempt set number = number + 7`,
    check: 'attempts',
    says: 'its hold names another attempt',
  },
  {
    table: 'attempt',
    change: `delete from attempt where state = 'resolved'`,
    check: 'attempts',
    says: 'a hold without an attempt',
  },
  { table: 'transfer', change: `delete from transfer where code = 'hold'`, check: 'attempts', says: 'has no hold' },
  {
    table: 'transfer',
    change: `update transfer set use = null where code = 'capture'`,
    check: 'attempts',
    says: 'has no labels',
  },
  {
    table: 'attempt',
    change: `update attempt set plan = plan - 'priceId'`,
    check: 'prices',
    says: 'its price is missing',
  },
  {
    table: 'attempt',
    change: `update attempt set plan = plan || '{"prices":{}}'`,
    check: 'prices',
    says: 'was planned at other prices',
  },
  {
    table: 'attempt',
    change: `update attempt set usage = '{"input":5000000,"cachedInput":0,"output":1}'`,
    check: 'prices',
    says: 'charged',
  },
  {
    table: 'price',
    change: `update price set per_call_nano = per_call_nano + 1`,
    check: 'prices',
    says: 'at other prices',
  },
  {
    table: 'call',
    change: `update call set state = 'open', answer_attempt = null`,
    check: 'answers',
    says: 'but a useful attempt',
  },
  { table: 'call', change: `update call set answer_attempt = 9`, check: 'answers', says: 'was answered by attempt 9' },
  {
    table: 'payload',
    change: `delete from payload where kind = 'answer'`,
    check: 'answers',
    says: 'its answer is missing',
  },
  { table: 'envelope', change: `delete from envelope`, check: 'calls', says: 'its envelope is missing' },
  { table: 'call', change: `update call set api_key_id = uuidv7()`, check: 'calls', says: 'is of another key' },
  { table: 'lease', change: `delete from lease`, check: 'lent', says: 'names a lease that never was' },
  {
    table: 'lease',
    change: `update lease set envelope_id = uuidv7()`,
    check: 'lent',
    says: 'names a lease of another envelope',
  },
  { table: 'limit_window', change: `delete from limit_window`, check: 'lent', says: 'names a lease without a window' },
  {
    table: 'lease',
    change: `update lease set used = used + 1, leased = leased + 9`,
    check: 'leases',
    says: 'has used',
  },
  { table: 'lease', change: `update lease set held = held + 1, leased = leased + 9`, check: 'leases', says: 'holds' },
  { table: 'attempt', change: `update attempt set tokens_used = tokens_used + 1`, check: 'leases', says: 'has used' },
] as const

/** Tells a story, after which nobody sweeps: two looks compare the same rows. */
async function tellAndRest(world: World): Promise<void> {
  const engines: RunningEngine[] = []
  await tellMoneyStory({
    ...world,
    async startEngine() {
      const engine = await world.startEngine()
      engines.push(engine)
      return engine
    },
  })
  for (const engine of engines) await engine.stop()
}

test('whole tables at once and row by row: the same is wrong, and the same is said of the first row', async () => {
  const world = await createLimitWorld()
  for (const measure of ['tokens', 'calls'] as const) {
    await world.limit({ measure, currency: null, cap: 1_000_000_000n, period: 'life' })
  }
  await world.limit({ cap: 10_000_000_000n })
  await tellAndRest(world)
  const envelope = await world.openEnvelope()
  const [open, settled] = [await envelope.hold(), await envelope.hold()]
  await envelope.settle(settled, { amount: 7n, tokens: 50n })
  expect(open.verdict).toBe('granted')
  expect(await look(world, 'whole')).toEqual(await look(world, 'pieces'))
  expect((await look(world, 'whole')).wrong).toEqual({})
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    await client.query(WITHOUT_CHECKS)
    for (const edit of EDITS) {
      await client.query(`drop table if exists saved; create table saved as table ${edit.table}`)
      expect((await client.query(edit.change)).rowCount, edit.change).toBeGreaterThan(0)
      const { wrong, rows } = await look(world, 'whole')
      expect(wrong[edit.check], edit.change).toContain(edit.says)
      expect({ wrong, rows }, edit.change).toEqual(await look(world, 'pieces'))
      await client.query(`delete from ${edit.table}; insert into ${edit.table} overriding system value table saved`)
    }
  })
  expect((await look(world, 'whole')).wrong).toEqual({})
})

test('a ledger is busy while a thousand movements came within seconds, and is then read in short statements', async () => {
  const world = await createWorld()
  const { queue } = await startProcess(world.database.appUrl)
  const run = await world.openRun({ direct: 1_000_000n })
  const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
  const calls = await openCalls(world.db, world.scope, { ...run, count: 500 })
  await Promise.all(calls.map((call) => queue.reserve(pocket, holdOf(call, 5n), forever())))
  expect(await isBusy(world.db)).toBe(false)
  await Promise.all(calls.map((call) => queue.settle(pocket, settlementOf(call, 3n))))
  expect(await isBusy(world.db)).toBe(true)
  await expectVerified(world)
})

async function look(world: World, reach: 'whole' | 'pieces') {
  const { checks } = await verifyLedger(world.db, reach === 'pieces' ? { maxWholeRows: 0 } : {})
  return {
    rows: checks.map(({ name, rows }) => [name, rows]),
    wrong: Object.fromEntries(checks.filter(({ ok }) => !ok).map(({ name, firstWrong }) => [name, said(firstWrong)])),
  }
}

/** Of rows of the same second either may be the first. */
function said(sentence: string | null): string | undefined {
  return sentence?.replaceAll(/[\da-f-]{36}(:\d+)?/g, 'one')
}
