import { connectDatabase } from '#db/database.ts'
import { openChild } from '#db/envelope.ts'
import { post } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { sql } from 'kysely'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { holdOf, openCalls, pocketOf, settlementOf, startProcess, type Process } from '../support/storm.ts'
import { createWorld, type World } from '../support/world.ts'

/** Where a row lies after it was touched is not ours to say, so the order of one round is by chance. */
const ROUNDS = 6

/** A watched run with a child: two pockets that may cross its thresholds. */
async function watchedTree(world: World) {
  const { db, scope } = world
  const { runId, envelopeId } = await world.openRun({ direct: 1_000_000n })
  await sql`select watch_run(${scope.projectId}, ${runId}, '{99}'::integer[])`.execute(db)
  const child = newId(Date.now())
  const carving = {
    id: newId(Date.now()),
    balanceClass: 'direct',
    currency: 'USD',
    amount: 1_000n,
    cap: 1_000n,
  } as const
  const request = { parentId: envelopeId, envelopeId: child, runId: null, kind: 'child', carvings: [carving] } as const
  expect(await openChild(db, scope, request)).toBeUndefined()
  return { root: { runId, envelopeId }, child: { runId, envelopeId: child } }
}

type Place = Awaited<ReturnType<typeof watchedTree>>['root']

async function heldCall({ db, scope }: World, { instanceId }: Process, place: Place) {
  const [call] = await openCalls(db, scope, { ...place, count: 1 })
  const pocket = await pocketOf(db, scope, { ...place, balanceClass: 'direct' })
  if (!call) throw new Error('no call')
  const { reserves } = await post(db, { instanceId, settles: [], reserves: [{ pocket, item: holdOf(call, 10n) }] })
  expect(reserves).toMatchObject([{ verdict: 'granted' }])
  return { pocket, item: settlementOf(call, 1n) }
}

test('batches that settle in the same two watched trees do not wait for each other', async () => {
  const world = await createWorld()
  const [one, two] = [await watchedTree(world), await watchedTree(world)]
  const [left, right] = [await startProcess(world.database.appUrl), await startProcess(world.database.appUrl)]
  const admin = new pg.Client(world.database.adminUrl)
  await admin.connect()
  onTestFinished(() => admin.end())
  const watcher = connectDatabase({ url: world.database.adminUrl, maxConnections: 1 })
  onTestFinished(() => watcher.destroy())
  const waiting = sql`select from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock'`
  for (let round = 0; round < ROUNDS; round += 1) {
    const places = [one.root, two.root, one.child, two.child]
    const settles = await Promise.all(places.map((place) => heldCall(world, left, place)))
    // A batch changes rows as they lie: those of the second batch lie the other way round.
    for (const index of [0, 1, 3, 2]) {
      await admin.query('update account set moved_at = moved_at where id = $1', [settles[index]?.pocket.accountId])
    }
    await admin.query('begin')
    await admin.query('select from run_threshold for update')
    const batches = [
      post(left.db, { instanceId: left.instanceId, settles: settles.slice(0, 2), reserves: [] }),
      post(right.db, { instanceId: left.instanceId, settles: settles.slice(2), reserves: [] }),
    ]
    const ends = Promise.allSettled(batches)
    await pollUntil(async () => (await waiting.execute(watcher)).rows.length === 2, { what: 'both batches wait' })
    await admin.query('commit')
    expect((await ends).map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled'])
  }
  await expectVerified(world)
})
