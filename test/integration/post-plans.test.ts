import { post } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { setLimit } from '#db/limit.ts'
import { connectDatabase } from '#db/database.ts'
import { sql, type Kysely } from 'kysely'
import type { Database } from '#db/schema.ts'
import { expect, onTestFinished, test } from 'vitest'
import { forever, holdOf, openCalls, pocketOf, settlementOf, startProcess } from '../support/storm.ts'
import { createWorld, type TestRun, type World } from '../support/world.ts'

const ENVELOPES = 120
/** Rows of one table that a hold and its settlement may read: of its own envelope, never of all. */
const FEW = 25
const MANY = 3_000

test('plans that were made for empty tables read only their own rows once there are many', async () => {
  const world = await createWorld()
  await limitProject(world)
  const hot = connectDatabase({ url: world.database.appUrl, maxConnections: 1 })
  onTestFinished(() => hot.destroy())
  const { queue, instanceId } = await startProcess(world.database.appUrl)
  const runs = await Promise.all(Array.from({ length: 3 }, () => world.openRun({ direct: 1_000n })))
  const [first] = runs
  if (!first) throw new Error('no run')

  // Few rows, counted: whatever is planned now is planned for tables of one page.
  for (const run of runs) await callOnce(world, queue, run)
  await sql`analyze`.execute(await adminOf(world))
  await callIn(hot, { world, run: first, instanceId })

  const others = await Promise.all(Array.from({ length: ENVELOPES }, () => world.openRun({ direct: 1_000n })))
  await Promise.all(others.map((run) => callOnce(world, queue, run)))
  const read = await callIn(hot, { world, run: first, instanceId })
  expect(Object.keys(read)).toContain('lease')
  for (const [table, rows] of Object.entries(read))
    expect(`${table} ${rows <= FEW ? 'few' : rows}`).toBe(`${table} few`)
})

test('a hold reads no open attempt and no envelope but its own, whether it fits or never does', async () => {
  const world = await createWorld()
  const hot = connectDatabase({ url: world.database.appUrl, maxConnections: 1 })
  onTestFinished(() => hot.destroy())
  const { queue, instanceId } = await startProcess(world.database.appUrl)
  const run = await world.openRun({ direct: 1_000n })
  await callOnce(world, queue, run)
  const admin = await adminOf(world)
  await sql`analyze`.execute(admin)
  await callIn(hot, { world, run, instanceId })
  await sql`set session_replication_role = replica`.execute(admin)
  const { projectId } = world.scope
  await sql`insert into attempt (call_id, number, project_id, run_id, envelope_id, account_id, hold_id, instance_id, owner, held,
      plan)
    select uuidv7(), 1, p, p, p, p, uuidv7(), p, p, 1, '{}' from generate_series(1, ${MANY}), (select ${projectId}::uuid as p) x`.execute(
    admin,
  )
  await sql`insert into envelope (id, project_id, wallet_id, kind, parent_id)
    select uuidv7(), p, p, 'child', uuidv7() from generate_series(1, ${MANY}), (select ${projectId}::uuid as p) x`.execute(
    admin,
  )
  const [never] = await openCalls(world.db, world.scope, { ...run, count: 1 })
  if (!never) throw new Error('no call')
  const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
  for (const read of [
    await callIn(hot, { world, run, instanceId }),
    await hot.transaction().execute(async (trx) => {
      const { reserves } = await post(trx, {
        instanceId,
        settles: [],
        reserves: [{ pocket, item: holdOf(never, 5_000n) }],
      })
      expect(reserves.map(({ verdict }) => verdict)).toEqual(['exhausted'])
      return readRows(trx)
    }),
  ]) {
    for (const [table, rows] of Object.entries(read))
      expect(`${table} ${rows <= FEW ? 'few' : rows}`).toBe(`${table} few`)
  }
})

async function limitProject({ db, scope }: World): Promise<void> {
  const { id: organisationId } = await db.selectFrom('organisation').select('id').executeTakeFirstOrThrow()
  const caller = { keyId: newId(Date.now()), organisationId, projectId: null }
  const limit = {
    scope: 'project',
    subjectId: scope.projectId,
    step: null,
    measure: 'money',
    currency: 'USD',
    period: 'month',
    timeZone: 'UTC',
    cap: 10n ** 12n,
  } as const
  expect(await setLimit(db, caller, { id: newId(Date.now()), ...limit })).toBe('set')
}

async function adminOf(world: World): Promise<Kysely<Database>> {
  const db = connectDatabase({ url: world.database.adminUrl, maxConnections: 1 })
  onTestFinished(() => db.destroy())
  return db
}

type Queue = Awaited<ReturnType<typeof startProcess>>['queue']

async function callOnce({ db, scope }: World, queue: Queue, run: TestRun): Promise<void> {
  const [call] = await openCalls(db, scope, { ...run, count: 1 })
  if (!call) throw new Error('no call')
  const pocket = await pocketOf(db, scope, { ...run, balanceClass: 'direct' })
  expect((await queue.reserve(pocket, holdOf(call, 10n), forever())).verdict).toBe('granted')
  expect((await queue.settle(pocket, settlementOf(call, 5n))).verdict).toBe('settled')
}

/** A hold and its settlement on one connection. Returns how many rows of each table they read. */
async function callIn(
  db: Kysely<Database>,
  request: { readonly world: World; readonly run: TestRun; readonly instanceId: string },
): Promise<Readonly<Record<string, number>>> {
  const { world, run, instanceId } = request
  const [call] = await openCalls(world.db, world.scope, { ...run, count: 1 })
  if (!call) throw new Error('no call')
  const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
  return db.transaction().execute(async (trx) => {
    const held = await post(trx, { instanceId, settles: [], reserves: [{ pocket, item: holdOf(call, 10n) }] })
    expect(held.reserves.map(({ verdict }) => verdict)).toEqual(['granted'])
    const settled = await post(trx, { instanceId, settles: [{ pocket, item: settlementOf(call, 5n) }], reserves: [] })
    expect(settled.settles.map((answer) => answer?.verdict)).toEqual(['settled'])
    return readRows(trx)
  })
}

/** How many rows of each table the transaction has read so far. */
async function readRows(trx: Kysely<Database>): Promise<Readonly<Record<string, number>>> {
  const { rows } = await sql<{ name: string; read: number }>`
    select relname as name, (seq_tup_read + coalesce(idx_tup_fetch, 0))::integer as read
    from pg_stat_xact_user_tables where seq_tup_read + coalesce(idx_tup_fetch, 0) > 0`.execute(trx)
  return Object.fromEntries(rows.map(({ name, read }) => [name, read]))
}
