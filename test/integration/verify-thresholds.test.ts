import { executeCall } from '#calls/execute.ts'
import { openChildRun } from '#db/child-run.ts'
import { closeEnvelope } from '#db/ledger.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'
import { wrongChecks } from '../support/seals.ts'
import { tamper } from '../support/tamper.ts'
import { createWorld, type World } from '../support/world.ts'

/** A run of twenty calls' money that made two, a child that made one, and what of that was to be told: 2, 7 and 12 were. */
async function createToldWorld(): Promise<World> {
  const world = await createWorld()
  const { db, scope } = world
  const engine = await world.startEngine()
  const body = { messages: [{ role: 'user', content: QUESTION }], maxTokens: 40 } as const
  const probe = await world.openRun({ direct: 1_000_000_000n })
  await executeCall(engine, probe.request('probe', QUESTION, { body }))
  const spent = await db.selectFrom('transfer').select('amount').where('code', '=', 'capture').executeTakeFirstOrThrow()
  const run = await world.openRun({ direct: 20n * spent.amount })
  const { runId } = run
  await sql`select watch_run(${scope.projectId}, ${runId}, '{2, 7, 12, 90}'::integer[])`.execute(db)
  for (const path of ['a', 'b']) await executeCall(engine, run.request(path, QUESTION, { body }))
  const child = await openChildRun(db, scope, { runId, path: 'sub', agent: 'echo', input: {} })
  if (child.kind !== 'opened') throw new Error(child.detail)
  const { envelope_id: envelopeId } = await db
    .selectFrom('run')
    .select('envelope_id')
    .where('id', '=', child.runId)
    .executeTakeFirstOrThrow()
  await executeCall(engine, run.request('c', QUESTION, { body, runId: child.runId, envelopeId }))
  const told = await db.selectFrom('event').select('data').where('kind', '=', 'run.threshold').orderBy('seq').execute()
  expect(told).toMatchObject([{ data: { percent: 2 } }, { data: { percent: 7 } }, { data: { percent: 12 } }])
  await expectVerified(world)
  return world
}

const TOLD = `kind = 'run.threshold'`

const edits = [
  {
    what: 'that was told twice',
    change: `insert into event (project_id, run_id, kind, data)
      select project_id, run_id, kind, data from event where ${TOLD} and data->>'percent' = '7'`,
    says: /^threshold \S+ 7 % of direct USD: was told 2 times$/,
  },
  {
    what: 'that was told below its mark',
    change: `update event set data = data || '{"spentNano": "3"}' where ${TOLD} and data->>'percent' = '2'`,
    says: / 2 % of direct USD: was told at 3 of \d+$/,
  },
  {
    what: 'that was told of money that was not spent by then',
    change: `with told as (update run_threshold set told_at = now() where percent = 90 returning run_id)
      insert into event (project_id, run_id, kind, data)
      select e.project_id, e.run_id, e.kind, e.data || jsonb_build_object('percent', 90, 'spentNano', e.data->>'fundedNano')
      from event e join told using (run_id) where ${TOLD} and data->>'percent' = '2'`,
    says: / 90 % of direct USD: was told at \d+, \d+ was spent by then$/,
  },
  {
    what: 'that was told of less money than there was',
    change: `update event set data = data || jsonb_build_object('fundedNano', data->>'spentNano')
      where ${TOLD} and data->>'percent' = '12'`,
    says: / 12 % of direct USD: was told of \d+ funded, which its pocket never was$/,
  },
  {
    what: 'that was told, and says it was not',
    change: 'update run_threshold set told_at = null where percent = 7',
    says: / 7 % of direct USD: was told, and says it was not$/,
  },
  {
    what: 'that says it was told, and was not',
    change: 'update run_threshold set told_at = now() where percent = 90',
    says: / 90 % of direct USD: says it was told, and was not$/,
  },
  {
    what: 'that is reached and was not told, the child counted',
    change: 'update run_threshold set percent = 13 where percent = 90',
    says: / 13 % of direct USD: is reached with \d+ of \d+, and was not told$/,
  },
  {
    what: 'of a pocket that is not there',
    change: `update run_threshold set currency = 'EUR' where percent = 90`,
    says: / 90 % of direct EUR: its run has no such pocket$/,
  },
]

test('verify finds a threshold that is told twice, below its mark, or not at all, and names it', async () => {
  const world = await createToldWorld()
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    await client.query('create temporary table kept_event as table event')
    await client.query('create temporary table kept_threshold as table run_threshold')
    for (const { what, change, says } of edits) {
      expect((await client.query(change)).rowCount, what).toBe(1)
      expect(await wrongChecks(world), what).toEqual({ thresholds: expect.stringMatching(says) })
      await client.query('delete from event')
      await client.query('insert into event overriding system value table kept_event')
      await client.query('delete from run_threshold')
      await client.query('insert into run_threshold table kept_threshold')
      await expectVerified(world)
    }
  })
})

test('thresholds of a run that is over are right, also when its events are gone', async () => {
  const world = await createToldWorld()
  const envelopes = await world.db.selectFrom('envelope').select('id').orderBy('id', 'desc').execute()
  for (const { id } of envelopes) await closeEnvelope(world.db, world.scope, { envelopeId: id, reason: 'over' })
  await expectVerified(world)
  await tamper(world, 'delete from event')
  await expectVerified(world)
})

test.each([
  { of: 'another run', change: `parent_run_id = (select id from run where parent_run_id is null order by id limit 1)` },
  { of: 'none', change: 'parent_run_id = null, parent_path = null' },
  { of: 'itself', change: 'parent_run_id = id' },
])('verify finds a run in a child envelope that says it is a child of $of', async ({ change }) => {
  const world = await createToldWorld()
  await tamper(world, `update run set ${change} where parent_run_id is not null`)
  // What it spent is that of another family then.
  expect(await wrongChecks(world)).toEqual({
    envelopes: expect.stringMatching(/^envelope \S+: its run is a child of another run than its parent envelope's$/),
    thresholds: expect.stringMatching(/ 12 % of direct USD: was told at \d+, \d+ was spent by then$/),
  })
})

test('two runs that say each is below the other are no end of the verification', async () => {
  const world = await createToldWorld()
  await tamper(
    world,
    `update run set parent_run_id = c.id, parent_path = 'x' from run c where c.parent_run_id = run.id`,
  )
  expect(await wrongChecks(world)).toEqual({ envelopes: expect.stringMatching(/its run is a child of another run/) })
})
