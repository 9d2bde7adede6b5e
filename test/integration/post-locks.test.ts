import { post, refillLeases } from '#db/hold.ts'
import { connectDatabase } from '#db/database.ts'
import type { Database } from '#db/schema.ts'
import { sql, type Kysely } from 'kysely'
import { expect, onTestFinished, test } from 'vitest'
import { createLimitWorld, type LimitWorld } from '../support/limits.ts'
import { expectVerified } from '../support/open-attempt.ts'
import {
  deadlocksOf,
  forever,
  holdOf,
  openCalls,
  pocketOf,
  settlementOf,
  somebodyWaits,
  startProcess,
  type StormCall,
} from '../support/storm.ts'

async function twoProcesses(count: number) {
  const world = await createLimitWorld()
  await world.limit({ measure: 'tokens', currency: null, period: 'life', cap: 100n })
  const run = await world.openRun({ direct: 100n, credit: 100n })
  const calls = (await openCalls(world.db, world.scope, { ...run, count })).toSorted((one, other) =>
    one.callId < other.callId ? -1 : 1,
  )
  const watcher = connectDatabase({ url: world.database.adminUrl, maxConnections: 1 })
  onTestFinished(() => watcher.destroy())
  const [direct, credit] = await Promise.all(
    (['direct', 'credit'] as const).map((balanceClass) => pocketOf(world.db, world.scope, { ...run, balanceClass })),
  )
  const [left, right] = await Promise.all([0, 1].map(() => startProcess(world.database.appUrl)))
  if (!direct || !credit || !left || !right) throw new Error('not two')
  return { world, calls, direct, credit, left, right, watcher }
}

/** Another executor's open attempt of a call, which is not committed: a hold of the call waits for it. */
async function withAttemptOf(
  world: LimitWorld,
  { callId, runId }: StormCall,
  work: () => Promise<void>,
): Promise<void> {
  await world.admin.query('begin')
  await world.admin.query(
    `insert into attempt (call_id, number, project_id, run_id, envelope_id, account_id, hold_id, instance_id, owner, held,
      plan) values ($1, 1, $2, $2, $2, $2, $2, $2, $2, 1, '{}')`,
    [callId, runId],
  )
  await work()
  await world.admin.query('rollback')
}

/** Until a second statement waits too, or was answered. */
async function secondOf(watcher: Kysely<Database>, work: Promise<unknown>): Promise<void> {
  const waiting = sql<{ count: bigint }>`select count(*) from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock'`
  let isAnswered = false
  const end = () => void (isAnswered = true)
  void work.then(end, end)
  await expect.poll(async () => isAnswered || (await waiting.execute(watcher)).rows[0]?.count === 2n).toBe(true)
}

test('a pocket that changed while a batch waited for it is changed as it is now', async () => {
  const { world, calls, direct, credit, left, watcher } = await twoProcesses(2)
  const [one, two] = calls
  if (!one || !two) throw new Error('no calls')
  await world.admin.query('begin')
  for (const _ of [0, 1, 2]) {
    for (const { accountId } of [direct, credit])
      await world.admin.query('update account set moved_at = moved_at where id = $1', [accountId])
  }
  const holds = Promise.all([
    left.queue.reserve(direct, holdOf(one, 50n), forever()),
    left.queue.reserve(credit, holdOf(two, 60n), forever()),
  ])
  await somebodyWaits(watcher)
  await world.admin.query('commit')
  expect((await holds).map(({ verdict }) => verdict)).toEqual(['granted', 'granted'])
  await expectVerified(world)
})

test('a hold that one pocket refuses and another holds for too many tokens deadlocks with nobody', async () => {
  const { world, calls, direct, credit, left, right, watcher } = await twoProcesses(3)
  const [first, asked, held] = calls
  if (!first || !asked || !held) throw new Error('no calls')
  await left.queue.reserve(direct, holdOf(held, 1n), forever())
  const works: Promise<unknown>[] = []
  await withAttemptOf(world, asked, async () => {
    const reserves = [holdOf(first, 1_000n), holdOf(asked, 1n)].map((item) => ({ pocket: direct, item }))
    works.push(post(left.db, { instanceId: left.instanceId, settles: [], reserves }))
    await somebodyWaits(watcher)
    const refill = refillLeases(right.db, credit, holdOf(first, 1n, { tokens: 500n }))
    works.push(refill)
    await secondOf(watcher, refill)
  })
  const [posted, refilled] = await Promise.allSettled(works)
  expect(posted?.status).toBe('fulfilled')
  // Two executors of one attempt: the second is told that it is refused, by name or because the refusal is there.
  if (refilled?.status === 'rejected') expect(refilled.reason).toMatchObject({ code: '23505' })
  expect(await deadlocksOf(world.db)).toBe(0n)
})

test('a batch of both kinds and a hold of the same call from another pocket deadlock with nobody', async () => {
  const { world, calls, direct, credit, left, right, watcher } = await twoProcesses(3)
  const [shared, held, asked] = calls
  if (!shared || !held || !asked) throw new Error('no calls')
  await left.queue.reserve(direct, holdOf(held, 1n), forever())
  const works: Promise<unknown>[] = []
  await withAttemptOf(world, asked, async () => {
    const reserves = [holdOf(shared, 1n), holdOf(asked, 1n)].map((item) => ({ pocket: credit, item }))
    works.push(post(right.db, { instanceId: right.instanceId, settles: [], reserves }))
    await somebodyWaits(watcher)
    const both = post(left.db, {
      instanceId: left.instanceId,
      settles: [{ pocket: direct, item: settlementOf(held, 1n) }],
      reserves: [{ pocket: direct, item: holdOf(shared, 1n) }],
    })
    works.push(both)
    await secondOf(watcher, both)
  })
  await Promise.allSettled(works)
  expect(await deadlocksOf(world.db)).toBe(0n)
})
