import { correct } from '#db/correction.ts'
import { post, type ReserveItem } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import pg from 'pg'
import { sql } from 'kysely'
import { expect, onTestFinished, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { expectVerified } from '../support/open-attempt.ts'
import {
  deadlocksOf,
  forever,
  holdOf,
  openCalls,
  pocketOf,
  registerForAnHour,
  settlementOf,
  startProcess,
} from '../support/storm.ts'
import { createWorld } from '../support/world.ts'

async function twoPockets(count: number) {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000n, credit: 1_000n })
  const calls = await openCalls(world.db, world.scope, { ...run, count })
  const direct = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
  const credit = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'credit' })
  return { world, run, calls, direct, credit, instanceId: await registerForAnHour(world.db) }
}

test('a settlement and a hold in one post are one transaction, and the hold may use what the settlement freed', async () => {
  const { world, calls, direct, credit, instanceId } = await twoPockets(3)
  const [first, second, third] = calls
  if (!first || !second || !third) throw new Error('no calls')
  const all = [
    { pocket: direct, item: holdOf(first, 1_000n) },
    { pocket: credit, item: holdOf(third, 400n) },
  ]
  const opened = await post(world.db, { instanceId, settles: [], reserves: all })
  expect(opened.reserves.map(({ verdict }) => verdict)).toEqual(['granted', 'granted'])
  const both = await post(world.db, {
    instanceId,
    settles: [{ pocket: direct, item: settlementOf(first, 300n, { answer: 'done' }) }],
    reserves: [{ pocket: direct, item: holdOf(second, 700n) }],
  })
  expect(both.settles.map((answer) => answer?.verdict)).toEqual(['settled'])
  expect(both.reserves.map(({ verdict }) => verdict)).toEqual(['granted'])
  const { rows } = await sql<{ code: string; xids: bigint; balance: bigint; held: bigint }>`
    select code, debit_balance as balance, debit_held as held, count(*) over (partition by xid) as xids
    from transfer where debit_account = ${direct.accountId} order by seq`.execute(world.db)
  expect(rows).toEqual([
    { code: 'hold', balance: 1_000n, held: 1_000n, xids: 1n },
    { code: 'capture', balance: 700n, held: 0n, xids: 2n },
    { code: 'hold', balance: 700n, held: 700n, xids: 2n },
  ])
  await expectVerified(world)
})

test('the next attempt of the same call is held in the commit that settles the one before', async () => {
  const { world, calls, direct, credit, instanceId } = await twoPockets(1)
  const [call] = calls
  if (!call) throw new Error('no call')
  await post(world.db, { instanceId, settles: [], reserves: [{ pocket: direct, item: holdOf(call, 10n) }] })
  const answer = await post(world.db, {
    instanceId,
    settles: [{ pocket: direct, item: settlementOf(call, null) }],
    reserves: [{ pocket: credit, item: holdOf(call, 10n, { number: 2 }) }],
  })
  expect(answer.settles[0]?.verdict).toBe('settled')
  expect(answer.reserves[0]?.verdict).toBe('granted')
  await expectVerified(world)
})

test('a hold replayed with other facts is a mismatch: another amount, other tokens, another pocket', async () => {
  const { world, calls, direct, credit, instanceId } = await twoPockets(2)
  const [call, other] = calls
  if (!call || !other) throw new Error('no calls')
  const item = holdOf(call, 10n)
  const ask = async (pocket: typeof direct, asked: ReserveItem) => {
    const [answer] = (await post(world.db, { instanceId, settles: [], reserves: [{ pocket, item: asked }] })).reserves
    return answer?.verdict
  }
  expect(await ask(direct, item)).toBe('granted')
  expect(await ask(direct, item)).toBe('granted')
  expect(await ask(direct, { ...item, amount: 11n })).toBe('mismatch')
  expect(await ask(direct, { ...item, tokens: 11n })).toBe('mismatch')
  expect(await ask(credit, item)).toBe('mismatch')
  expect(await ask(direct, { ...item, owner: newId(0) })).toBe('taken')
  const { queue } = await startProcess(world.database.appUrl)
  const stolen = { ...holdOf(other, 10n), holdId: item.holdId }
  expect((await queue.reserve(direct, stolen, forever())).verdict).toBe('mismatch')
  const settlement = { ...settlementOf(call, 10n), resolutionId: item.holdId }
  expect((await queue.settle(direct, settlement)).verdict).toBe('mismatch')
  await expectVerified(world)
})

test('two processes that hold the same calls on two pockets, in opposite order, hold each of them once', async () => {
  const { world, run, direct, credit } = await twoPockets(0)
  const calls = await openCalls(world.db, world.scope, { ...run, count: 9 })
  const middle = calls.map(({ callId }) => callId).toSorted()[4]
  const left = await startProcess(world.database.appUrl)
  const right = await startProcess(world.database.appUrl)
  const admin = await connectAdmin(world.database.adminUrl)
  // Both have written their first attempts when they meet one that a third is writing, and has not committed.
  await admin.query('begin')
  await admin.query(
    `insert into attempt (call_id, number, project_id, run_id, envelope_id, account_id, hold_id, instance_id, owner, held, plan)
      values ($1, 1, $2, $2, $2, $2, $2, $2, $2, 1, '{}')`,
    [middle, run.runId],
  )
  const pending = [
    ...calls.map((call) => left.queue.reserve(direct, holdOf(call, 1n, { owner: left.instanceId }), forever())),
    ...calls
      .toReversed()
      .map((call) => right.queue.reserve(credit, holdOf(call, 1n, { owner: right.instanceId }), forever())),
  ]
  await untilWaiting(admin, 2)
  await admin.query('rollback')
  const verdicts = (await Promise.all(pending)).map(({ verdict }) => verdict)
  expect(verdicts.toSorted()).toEqual([...calls.map(() => 'granted'), ...calls.map(() => 'taken')])
  await Promise.all([left.db.destroy(), right.db.destroy()])
  expect(await deadlocksOf(world.db)).toBe(0n)
  await expectVerified(world)
})

test('late truth and the settlement of the next attempt, both with an answer and a lease in common, do not deadlock', async () => {
  const { world, run, calls, direct, credit, instanceId } = await twoPockets(1)
  const [call] = calls
  if (!call) throw new Error('no call')
  const admin = await connectAdmin(world.database.adminUrl)
  await leaseEverything(admin, { ...run, projectId: world.scope.projectId })
  await post(world.db, { instanceId, settles: [], reserves: [{ pocket: direct, item: holdOf(call, 10n) }] })
  await post(world.db, {
    instanceId,
    settles: [{ pocket: direct, item: settlementOf(call, 10n) }],
    reserves: [{ pocket: credit, item: holdOf(call, 10n, { number: 2 }) }],
  })
  const late = await startProcess(world.database.appUrl)
  const prompt = await startProcess(world.database.appUrl)
  await admin.query('begin')
  await admin.query('select from call where id = $1 for update', [call.callId])
  const truth = { ...settlementOf(call, 7n, { answer: 'late' }), correctionId: newId(Date.now()), amount: 7n }
  const corrected = correct(late.db, direct, { ...truth, certainty: 'estimated' })
  await untilWaiting(admin, 1)
  const settled = prompt.queue.settle(credit, settlementOf(call, 5n, { number: 2, answer: 'prompt' }))
  await untilWaiting(admin, 2)
  await admin.query('rollback')
  expect(await corrected).toBe('corrected')
  expect((await settled).verdict).toBe('settled_unused')
  await Promise.all([late.db.destroy(), prompt.db.destroy()])
  expect(await deadlocksOf(world.db)).toBe(0n)
  const leases = await world.db.selectFrom('lease').select(['held', 'used']).execute()
  expect(leases).toEqual([{ held: 0n, used: 2n }])
  await expectVerified(world)
})

test('a caller whose wait is over is told so, however many wait in front of it', async () => {
  const { world, run, direct } = await twoPockets(0)
  const { queue } = await startProcess(world.database.appUrl)
  const calls = await openCalls(world.db, world.scope, { ...run, count: 300 })
  const [first, ...others] = calls
  if (!first) throw new Error('no call')
  expect((await queue.reserve(direct, holdOf(first, 1_000n), forever())).verdict).toBe('granted')
  const controllers = others.map(() => new AbortController())
  const waiting = others.map((call, index) =>
    queue.reserve(direct, holdOf(call, 1n), { signal: controllers[index]?.signal ?? AbortSignal.abort() }),
  )
  controllers.at(-1)?.abort()
  expect((await waiting.at(-1))?.verdict).toBe('busy')
  for (const controller of controllers) controller.abort()
  expect(new Set((await Promise.all(waiting)).map(({ verdict }) => verdict))).toEqual(new Set(['busy']))
  await queue.settle(direct, settlementOf(first, null))
  await expectVerified(world)
})

async function connectAdmin(url: string): Promise<pg.Client> {
  const admin = new pg.Client(url)
  await admin.connect()
  onTestFinished(() => admin.end())
  return admin
}

async function leaseEverything(admin: pg.Client, run: { readonly envelopeId: string; readonly projectId: string }) {
  await admin.query(
    `insert into usage_limit (id, organisation_id, project_id, scope, subject_id, measure, period, cap)
      select $1, organisation_id, id, 'project', id, 'calls', 'life', 100 from project where id = $1`,
    [run.projectId],
  )
  await admin.query(
    `insert into limit_change (organisation_id, limit_id, change, cap)
      select organisation_id, id, 'set', 100 from project where id = $1`,
    [run.projectId],
  )
  await admin.query(`insert into limit_window (limit_id, starts_at) values ($1, 'epoch')`, [run.projectId])
  await admin.query(
    `insert into lease (project_id, limit_id, starts_at, envelope_id, leased) values ($1, $1, 'epoch', $2, 50)`,
    [run.projectId, run.envelopeId],
  )
}

function untilWaiting(admin: pg.Client, count: number) {
  return pollUntil(
    async () => {
      const { rowCount } = await admin.query(
        `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      )
      return (rowCount ?? 0) >= count
    },
    { what: `${count} waiting for a lock` },
  )
}
