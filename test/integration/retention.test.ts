import { executeCall } from '#calls/execute.ts'
import { openAttempts } from '#db/call.ts'
import { purgeExpired } from '#db/retention.ts'
import { beginClosing, finishRun } from '#db/run-end.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { expectVerified, QUESTION, withOpenAttempt } from '../support/open-attempt.ts'
import { asAdmin } from '../support/wallets.ts'
import { createWorld, type World } from '../support/world.ts'

const A_DAY = { refusalsDays: 1, idempotencyDays: 1, instancesDays: 1 }
const FOR_EVER = { refusalsDays: 0, idempotencyDays: 0, instancesDays: 0 }
const NOTHING = { refusals: 0, keyEvents: 0, idempotency: 0, instances: 0, limitThresholds: 0, loneDeposits: 0 }

/** A run whose one call was refused for money. */
async function refusedRun(world: World) {
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 10n })
  const { kind } = await executeCall(engine, run.request('one', QUESTION))
  expect(kind).toBe('exhausted')
  return { run, engine }
}

const countOf = async (world: World, table: 'refusal' | 'idempotency' | 'instance') => {
  const { rows } = await sql<{ rows: number }>`select count(*)::integer as rows from ${sql.table(table)}`.execute(
    world.db,
  )
  return rows[0]?.rows
}

test('refusals go when their run has been over for as long as they are kept, and not before', async () => {
  const world = await createWorld()
  const { run } = await refusedRun(world)
  await asAdmin(world, `update refusal set recorded_at = recorded_at - interval '9 days'`)
  expect(await purgeExpired(world.db, A_DAY)).toEqual(NOTHING)
  const end = { state: 'cancelled', reason: 'cancelled', detail: 'by a person' } as const
  await beginClosing(world.db, world.scope, {
    runId: run.runId,
    from: 'any',
    reason: 'cancelled',
    detail: 'by a person',
  })
  await finishRun(world.db, world.scope, { runId: run.runId, end, output: null })
  expect(await purgeExpired(world.db, A_DAY)).toEqual(NOTHING)
  await asAdmin(world, `update run set finished_at = finished_at - interval '2 days'`)
  expect(await purgeExpired(world.db, FOR_EVER)).toEqual(NOTHING)
  const [one, two] = await Promise.all([purgeExpired(world.db, A_DAY), purgeExpired(world.db, A_DAY)])
  expect(one.refusals + two.refusals).toBe(1)
  expect(await countOf(world, 'refusal')).toBe(0)
  await expectVerified(world)
})

test('old answers to idempotency keys go, and young ones stay', async () => {
  const world = await createWorld()
  const add = (key: string, days: number) =>
    asAdmin(
      world,
      `insert into idempotency (scope, key, digest, status, body, created_at)
        select uuidv7(), $1 || n, '', 201, '{}', clock_timestamp() - make_interval(days => $2::integer)
        from generate_series(1, 1500) n`,
      [key, String(days)],
    )
  await add('old', 2)
  await add('young', 0)
  const turns = [
    await purgeExpired(world.db, A_DAY),
    await purgeExpired(world.db, A_DAY),
    await purgeExpired(world.db, A_DAY),
  ]
  expect(turns.map(({ idempotency }) => idempotency)).toEqual([1000, 500, 0])
  expect(await countOf(world, 'idempotency')).toBe(1500)
})

test('a process goes when it is long dead and has left nothing open', async () => {
  const world = await createWorld()
  const { run, controller, call, engine } = await withOpenAttempt(world)
  const other = await world.startEngine()
  await other.stop()
  const age = (id: string) =>
    asAdmin(world, `update instance set lease_until = lease_until - interval '3 days' where id = $1`, [id])
  await age(engine.instance.id)
  await age(other.instance.id)
  const before = await countOf(world, 'instance')
  expect(await purgeExpired(world.db, { ...A_DAY, refusalsDays: 0 })).toEqual({ ...NOTHING, instances: 1 })
  expect(await countOf(world, 'instance')).toBe((before ?? 0) - 1)
  expect(await openAttempts(world.db, world.scope, run.runId)).toHaveLength(1)
  controller.abort()
  await call.catch(() => {})
  await expectVerified(world)
})

test('which thresholds were told of is forgotten when their window has been over for a day', async () => {
  const world = await createWorld()
  await asAdmin(
    world,
    `with hook as (
        insert into webhook (id, project_id, url, topics, secret) values (uuidv7(), $1, '', '{threshold}', '') returning id
      )
      insert into webhook_limit_threshold (webhook_id, limit_id, starts_at, percent, ends_at)
        select hook.id, uuidv7(), 'epoch', 80, clock_timestamp() + e::interval
        from hook, unnest(array['-2 days', '-25 hours', '-23 hours', '1 hour', null]) e`,
    [world.scope.projectId],
  )
  const [one, two] = await Promise.all([purgeExpired(world.db, FOR_EVER), purgeExpired(world.db, FOR_EVER)])
  expect(one.limitThresholds + two.limitThresholds).toBe(2)
  const kept = await world.db.selectFrom('webhook_limit_threshold').select('ends_at').execute()
  expect(kept.map(({ ends_at: at }) => at && at.getTime() > Date.now() - 86_400_000)).toEqual([true, true, null])
})

test('what was deposited alone is forgotten when it is added up no more, whether or not anybody deposits again', async () => {
  const world = await createWorld()
  await asAdmin(
    world,
    `insert into lone_deposit (deposit_id, organisation_id, currency, amount, made_at)
      select uuidv7(), p.organisation_id, 'USD', n, clock_timestamp() - e::interval
      from project p, unnest(array['49 hours', '30 days', '25 hours', '0']) with ordinality a (e, n)
      where p.id = $1`,
    [world.scope.projectId],
  )
  const [one, two] = await Promise.all([purgeExpired(world.db, FOR_EVER), purgeExpired(world.db, FOR_EVER)])
  expect(one.loneDeposits + two.loneDeposits).toBe(2)
  const kept = await world.db.selectFrom('lone_deposit').select('amount').orderBy('amount').execute()
  expect(kept.map(({ amount }) => amount)).toEqual([3n, 4n])
})

test('the application deletes by these functions only', async () => {
  const world = await createWorld()
  for (const table of [
    'refusal',
    'idempotency',
    'instance',
    'transfer',
    'event',
    'payload',
    'webhook_limit_threshold',
    'lone_deposit',
  ]) {
    await expect(sql`delete from ${sql.table(table)}`.execute(world.db)).rejects.toThrow('permission denied')
  }
})

test('nothing is forgotten on the day it was written, whatever age is asked for', async () => {
  const world = await createWorld()
  await refusedRun(world)
  await asAdmin(
    world,
    `insert into idempotency (scope, key, digest, status, body) values (uuidv7(), 'k', '', 201, '{}')`,
  )
  for (const name of [
    'purge_refusals',
    'purge_idempotency',
    'purge_instances',
    'purge_limit_thresholds',
    'purge_lone_deposits',
  ]) {
    const { rows } = await sql`select ${sql.id(name)}(interval '-100 years', 1000) as purged`.execute(world.db)
    expect(rows).toEqual([{ purged: 0 }])
  }
})
