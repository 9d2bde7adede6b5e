import { executeCall } from '#calls/execute.ts'
import { correct } from '#db/correction.ts'
import { connectDatabase } from '#db/database.ts'
import { eraseDue } from '#db/erasure.ts'
import { deriveId, newId } from '#db/ids.ts'
import { settle } from '#db/hold.ts'
import { forkPoint, holdSource } from '#db/run-source.ts'
import { sql } from 'kysely'
import { expect, onTestFinished, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { makeTenant, startTestRun, text, useApi } from '../support/api.ts'
import { useEngine } from '../support/api-engine.ts'
import { truthOf } from '../support/late-truth.ts'
import { expectVerified, QUESTION, resolution, withOpenAttempt } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { endRun, eraseAll, keep, letPass, tablesWith } from '../support/storage.ts'
import { createWorld, requestsSeen, type World } from '../support/world.ts'

const MANY = 10_000
const CANARY = '4711-kestrel'

/** A run that is over, with so many requests of its own, written by hand. */
async function largeRun(world: World, count: number): Promise<string> {
  const run = await world.openRun({ direct: 1_000n })
  const { envelopeId, apiKeyId } = run.request('', '')
  const requestOf = (number: number) => deriveId(run.runId, 'request', String(number))
  const callOf = (number: number) => deriveId(run.runId, 'call', String(number))
  const numbers = Array.from({ length: count }, (_, number) => number)
  const ids = [numbers.map(callOf), numbers.map(requestOf)] as const
  await asAdmin(world, async (admin) => {
    await admin.query(
      `insert into payload (id, project_id, run_id, kind, body)
        select r.id, $2, $3, 'request', jsonb_build_object('text', r.id) from unnest($1::uuid[]) r (id)`,
      [ids[1], world.scope.projectId, run.runId],
    )
    await admin.query(
      `insert into call (id, project_id, run_id, envelope_id, api_key_id, path, digest, model, catalog_version, request_id)
        select c.id, $3, $4, $5, $6, 'p/' || c.id, '', 'steady', 1, c.request_id
        from unnest($1::uuid[], $2::uuid[]) c (id, request_id)`,
      [...ids, world.scope.projectId, run.runId, envelopeId, apiKeyId],
    )
  })
  await endRun(world, run.runId)
  return run.runId
}

test('ten thousand texts are erased in bounded turns, by two processes at once, each text once', async () => {
  const world = await createWorld()
  await largeRun(world, MANY)
  await keep(world, 'hash_only')
  await letPass(world, '1 day')
  expect(await eraseDue(world.db, { most: 2 })).toEqual({ marked: 1, payloads: 2_000, runs: 0 })
  const other = connectDatabase({ url: world.database.appUrl, maxConnections: 2 })
  onTestFinished(() => other.destroy())
  let erased = 2_000
  const readers = Promise.all(
    [world.db, other].map(async (db) => {
      for (;;) {
        const { payloads, runs } = await eraseDue(db, { most: 3 })
        erased += payloads
        if (payloads + runs === 0) return
      }
    }),
  )
  await readers
  expect(erased).toBe(MANY)
  const { rows } = await sql`select erased_at is not null as erased from run`.execute(world.db)
  expect(rows).toEqual([{ erased: true }])
  await expectVerified(world)
}, 120_000)

test('a commit erases few texts where they are large', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000n })
  await asAdmin(world, async (admin) => {
    // Hashes do not compress.
    await admin.query(
      `insert into payload (id, project_id, run_id, kind, body)
        select i.id, $2, $3, 'tool', jsonb_build_object('text', (
          select string_agg(encode(sha256((i.id::text || n)::bytea), 'hex'), '') from generate_series(1, 110000) n))
        from unnest($1::uuid[]) i (id)`,
      [['a', 'b', 'c', 'd', 'e', 'f'].map((name) => deriveId(run.runId, name)), world.scope.projectId, run.runId],
    )
  })
  await endRun(world, run.runId)
  await keep(world, 'hash_only')
  await letPass(world, '1 day')
  const first = await eraseDue(world.db, { most: 1 })
  expect(first.payloads).toBeGreaterThan(0)
  expect(first.payloads).toBeLessThan(5)
  expect((await eraseAll(world)).payloads).toBe(6 - first.payloads)
}, 120_000)

test('what is looked for is found by an index, however much is kept beside it', async () => {
  const world = await createWorld()
  await largeRun(world, 3_000)
  const small = await largeRun(world, 5)
  await keep(world, 'hash_only')
  await asAdmin(world, (admin) => admin.query('analyze'))
  await letPass(world, '1 hour')
  await asAdmin(world, (admin) => admin.query(`update run set finished_at = clock_timestamp() where id <> $1`, [small]))
  const read = await world.db.transaction().execute(async (trx) => {
    expect(await eraseDue(trx)).toEqual({ marked: 1, payloads: 5, runs: 1 })
    const { rows } = await sql<{ name: string; read: number }>`
      select relname as name, (seq_tup_read + coalesce(idx_tup_fetch, 0))::integer as read
      from pg_stat_xact_user_tables where relname in ('payload', 'call')`.execute(trx)
    return rows
  })
  expect(read.map(({ name }) => name).toSorted()).toEqual(['call', 'payload'])
  for (const { read: rows } of read) expect(rows).toBeLessThan(100)
}, 60_000)

test('a fork that is being written keeps its source, and one that comes as it is erased is refused', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { world, call } = await useEngine(api, tenant)
  const first = await startTestRun(api, tenant)
  await call(first, 'plan')
  await endRun(world, first)
  await keep(world, 'hash_only')
  await letPass(world, '1 day')
  const { db, scope } = world
  await db.transaction().execute(async (trx) => {
    await forkPoint(trx, scope, { runId: first, from: undefined })
    await holdSource(trx, scope, first)
    expect(await eraseDue(db)).toEqual({ marked: 0, payloads: 0, runs: 0 })
  })
  await expect(
    db.transaction().execute(async (trx) => {
      await forkPoint(trx, scope, { runId: first, from: undefined })
      expect(await eraseDue(db)).toEqual({ marked: 1, payloads: 2, runs: 1 })
      await holdSource(trx, scope, first)
    }),
  ).rejects.toMatchObject({ code: 'answer_not_stored' })
})

test('a fork whose source is erased while it waits for its money is refused, and nothing is set aside', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { world, call } = await useEngine(api, tenant)
  const { key } = tenant
  const first = await startTestRun(api, tenant)
  await call(first, 'plan')
  await endRun(world, first)
  await keep(world, 'hash_only')
  await letPass(world, '1 day')
  const wallet = () => api.ask('GET', `/api/v1/projects/${tenant.projectId}/wallet`, { key })
  const before = (await wallet()).body
  let refused: Awaited<ReturnType<typeof api.ask>> | undefined
  await asAdmin(world, async (admin) => {
    await admin.query('begin')
    await admin.query(`select from account where kind = 'wallet' for update`)
    const fork = api.ask('POST', `/api/v1/runs/${first}/fork`, { key })
    const waiting = `select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
    await pollUntil(async () => (await admin.query(waiting)).rowCount === 1, { what: 'the fork waits' })
    expect(await eraseDue(world.db)).toEqual({ marked: 1, payloads: 2, runs: 1 })
    await admin.query('commit')
    refused = await fork
  })
  expect(refused).toMatchObject({ status: 410, body: { code: 'answer_not_stored' } })
  expect((await wallet()).body).toEqual(before)
  await expectVerified(world)
})

test('of forks and chores at the same time, each fork is refused or has all it asks for', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const { world, call } = await useEngine(api, tenant)
  await keep(world, 'hash_only')
  const sources = []
  for (let number = 0; number < 6; number += 1) {
    const source = await startTestRun(api, tenant, { envelope: { pockets: [pocket('0.1')] } })
    await call(source, 'plan')
    await endRun(world, source)
    sources.push(source)
  }
  await letPass(world, '1 day')
  const seen = (await requestsSeen(world.sandbox)).length
  const forks = await Promise.all(
    sources.flatMap((source, number) => [
      api.ask('POST', `/api/v1/runs/${source}/fork`, {
        key: tenant.key,
        body: { envelope: { pockets: [pocket('0.1')] } },
      }),
      ...(number % 2 === 0 ? [eraseDue(world.db).then(() => undefined)] : []),
    ]),
  )
  let made = 0
  for (const fork of forks) {
    if (!fork) continue
    expect([201, 410]).toContain(fork.status)
    if (fork.status !== 201) continue
    made += 1
    await eraseDue(world.db)
    expect(await call(text(fork.body, 'id'), 'plan')).toMatchObject({ kind: 'answered' })
  }
  expect(forks.length - made).toBeGreaterThan(0)
  expect(await requestsSeen(world.sandbox)).toHaveLength(seen)
  await expectVerified(world)
}, 60_000)

function pocket(amount: string) {
  return { balanceClass: 'direct', amount: { amount, currency: 'USD' } }
}

test('an answer that comes after its run is erased is booked, its text is not kept, and telling it again changes nothing', async () => {
  const world = await createWorld()
  const { engine, run, call, controller, attempt, pocket: paying } = await withOpenAttempt(world)
  controller.abort()
  await call
  await endRun(world, run.runId)
  await keep(world, 'hash_only')
  await letPass(world, '1 day')
  expect(await eraseAll(world)).toEqual({ payloads: 1, runs: 1 })
  const answer = { answerId: newId(Date.now()), answer: { text: CANARY, finishReason: 'stop' } }
  const truth = { ...truthOf(attempt, 5n), ...answer }
  expect(await correct(world.db, paying, truth)).toBe('corrected')
  expect(await correct(world.db, paying, truth)).toBe('replayed')
  expect(await correct(world.db, paying, { ...truth, answer: { text: 'another', finishReason: 'stop' } })).not.toBe(
    'replayed',
  )
  expect(await tablesWith(world, CANARY)).toEqual([])
  const again = await executeCall(engine, run.request('one', QUESTION))
  expect(again).toMatchObject({ kind: 'failed', reason: 'answer_not_stored' })
  await expectVerified(world)
})

test('a settlement that is told again after its answer was erased is the same one', async () => {
  const world = await createWorld()
  const { run, call, controller, attempt, pocket: paying } = await withOpenAttempt(world)
  const answer = { answerId: newId(Date.now()), answer: { text: CANARY, finishReason: 'stop' } }
  const item = { ...resolution(attempt, 5n), outcome: 'answered' as const, ...answer }
  const tell = async (told: typeof item) => (await settle(world.db, paying, { item: told, mode: 'owner' })).verdict
  expect(await tell(item)).toBe('settled')
  controller.abort()
  // Its own settlement says something else, of an attempt that is settled.
  await call.catch(() => {})
  await endRun(world, run.runId)
  await keep(world, 'hash_only')
  await letPass(world, '1 day')
  expect(await eraseAll(world)).toEqual({ payloads: 2, runs: 1 })
  expect(await tell(item)).toBe('replayed')
  expect(await tell({ ...item, answer: { text: 'another', finishReason: 'stop' } })).toBe('mismatch')
})
