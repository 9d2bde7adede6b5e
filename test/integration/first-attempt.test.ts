import { executeCall } from '#calls/execute.ts'
import { importCatalog } from '#db/catalog.ts'
import { loadCall } from '#db/call.ts'
import { setGate } from '#db/ledger.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { expectVerified } from '../support/open-attempt.ts'
import { createWorld, requestsSeen, testCatalog, type World } from '../support/world.ts'

const QUESTION = '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?'

/** Transactions of this database that were committed so far, reads included. */
async function commitsOf(world: World): Promise<number> {
  await sql`select pg_stat_force_next_flush()`.execute(world.db)
  const { rows } = await sql<{ commits: string }>`
    select xact_commit::text as commits from pg_stat_database where datname = current_database()`.execute(world.db)
  return Number(rows[0]?.commits)
}

test('a call costs two commits: one before its request and one after', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 100_000_000_000n })
  const ask = async (path: string) =>
    expect(await executeCall(engine, run.request(path, QUESTION))).toMatchObject({ kind: 'answered' })
  await ask('warm')
  const before = await commitsOf(world)
  const calls = 200
  for (let index = 0; index < calls; index += 1) await ask(`call/${index}`)
  // Each connection tells its counts about once a second.
  await expect
    .poll(() => commitsOf(world), { timeout: 10_000, interval: 250 })
    .toBeGreaterThanOrEqual(before + 2 * calls)
  expect((await commitsOf(world)) - before).toBeLessThan(2.5 * calls)
  expect(await requestsSeen(world.sandbox)).toHaveLength(calls + 1)
  await expectVerified(world)
})

test('a call keeps the version of the catalog that it began with, whoever goes on with it', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const first = await world.startEngine()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { rateLimit: true, retryAfterMs: 20_000, times: 1 })
  const request = run.request('one', QUESTION)
  expect(await executeCall(first, request)).toMatchObject({ kind: 'waiting' })
  const models = testCatalog.models.map((model) => ({
    ...model,
    routes: model.routes.map((route) => ({ ...route, provider: 'elsewhere' })),
  }))
  await importCatalog(world.db, { ...testCatalog, models })
  const second = await world.startEngine()
  const other = await executeCall(second, run.request('two', QUESTION))
  expect(other).toMatchObject({ kind: 'failed', reason: 'no_route' })
  // The first call waits for its own route still: that of the version it began with.
  expect(await executeCall(second, request)).toMatchObject({ kind: 'waiting' })
})

test('an answered call is answered though its envelope is frozen', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const engine = await world.startEngine()
  const before = await executeCall(engine, run.request('one', QUESTION))
  await world.db
    .transaction()
    .execute((trx) => setGate(trx, world.scope, { envelopeId: run.envelopeId, gate: 'frozen', reason: 'test' }))
  expect(await executeCall(engine, run.request('one', QUESTION))).toEqual({ ...before, receipt: undefined })
  expect(await executeCall(engine, run.request('two', QUESTION))).toMatchObject({ kind: 'gate', gate: 'frozen' })
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
})

test('what is returned at once is what is stored, and what a later execution returns', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const odd = `<passage id="p1">The mill \u{d800} was\u0000 built in 1711.</passage> When was the mill built?`
  const now = await executeCall(engine, run.request('odd', odd))
  expect(now).toMatchObject({ kind: 'answered' })
  expect(await executeCall(await world.startEngine(), run.request('odd', odd))).toEqual({ ...now, receipt: undefined })
})

test('a new catalog and a new price are in force within a second, without a restart', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  expect(await executeCall(engine, run.request('one', QUESTION))).toMatchObject({ kind: 'answered' })
  const prices = testCatalog.prices.map((price) => ({ ...price, input: '0.80' }))
  const version = await importCatalog(world.db, { ...testCatalog, prices })
  let index = 0
  await expect
    .poll(
      async () => {
        const result = await executeCall(engine, run.request(`again/${(index += 1)}`, QUESTION))
        if (result.kind !== 'answered') return undefined
        const story = await loadCall(world.db, world.scope, result.callId)
        return [story?.catalogVersion, story?.steps[0]?.plan]
      },
      { timeout: 5_000 },
    )
    .toMatchObject([version, { prices: { inputNanoPerMillion: '800000000' } }])
  await expectVerified(world)
})
