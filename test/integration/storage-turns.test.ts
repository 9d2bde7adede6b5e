import { eraseDue } from '#db/erasure.ts'
import { openChildRun } from '#db/child-run.ts'
import { deriveId, newId } from '#db/ids.ts'
import { putPayload } from '#db/payload.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { endRun, keep, letPass, tablesWith } from '../support/storage.ts'
import { createWorld, type World } from '../support/world.ts'

/** More than one look takes. */
const MANY = 120

/** Runs that are over, each with something that a tool gave. */
async function runsOf(world: World, count: number, body: object): Promise<void> {
  for (let number = 0; number < count; number += 1) {
    const { runId } = await world.openRun({ direct: 1_000n })
    await putPayload(world.db, world.scope, { id: deriveId(runId, 'tool', 'read/0'), runId, kind: 'tool', body })
    await endRun(world, runId)
  }
}

/** Whatever has this text cannot be erased. */
async function resist(world: World, text: string): Promise<void> {
  await asAdmin(world, async (admin) => {
    await admin.query(`create function resist() returns trigger language plpgsql as $$
      begin raise exception 'it cannot be erased'; end $$`)
    await admin.query(`create trigger resist before update on payload for each row
      when (strpos(old.body::text, '${text}') > 0) execute function resist()`)
  })
}

async function useDue(): Promise<World> {
  const world = await createWorld()
  await keep(world, 'hash_only')
  return world
}

test('one turn erases all that is due, of however many runs', async () => {
  const world = await useDue()
  await runsOf(world, MANY, { said: 'kestrel' })
  await letPass(world, '1 day')
  expect(await eraseDue(world.db)).toEqual({ marked: MANY, payloads: MANY, runs: MANY })
}, 120_000)

test('texts that cannot be erased keep no others, and it is said', async () => {
  const world = await useDue()
  await resist(world, 'granite')
  const ofNoRun = (said: string) =>
    putPayload(world.db, world.scope, { id: newId(Date.now()), runId: null, kind: 'answer', body: { said } })
  await ofNoRun('granite')
  await runsOf(world, MANY, { said: 'granite' })
  await runsOf(world, 3, { said: 'kestrel' })
  await letPass(world, '1 day')
  await expect(eraseDue(world.db)).rejects.toThrow('it cannot be erased')
  expect(await tablesWith(world, 'kestrel')).toEqual([])
  expect(await tablesWith(world, 'granite')).toEqual(['payload'])
}, 120_000)

test('a turn ends soon when its process is told to stop', async () => {
  const world = await useDue()
  await runsOf(world, 10, { said: 'kestrel' })
  await letPass(world, '1 day')
  let looks = 0
  const { runs } = await eraseDue(world.db, { isStopped: () => (looks += 1) > 4 })
  expect(runs).toBeLessThan(5)
  expect(await eraseDue(world.db)).toMatchObject({ marked: 0, runs: 10 - runs })
}, 60_000)

test('runs that unfinished forks of their children hold keep no others', async () => {
  const world = await useDue()
  const [held, free] = [await world.openRun({ direct: 1_000n }), await world.openRun({ direct: 1_000n })]
  const child = await openChildRun(world.db, world.scope, { runId: held.runId, path: 'sub', agent: 'echo', input: {} })
  if (child.kind !== 'opened') throw new Error(child.detail)
  const fork = await world.openRun({ direct: 1_000n })
  await asAdmin(world, (admin) =>
    admin.query('update run set source_run_id = $1, reuse_before = clock_timestamp() where id = $2', [
      child.runId,
      fork.runId,
    ]),
  )
  await endRun(world, child.runId)
  await endRun(world, held.runId)
  await letPass(world, '1 hour')
  await endRun(world, free.runId)
  await letPass(world, '1 hour')
  const markOne = async () => {
    const { rows } = await sql<{ marked: number }>`select begin_erasing(1) as marked`.execute(world.db)
    return rows[0]?.marked
  }
  expect([await markOne(), await markOne()]).toEqual([1, 0])
  const marked = () => world.db.selectFrom('run').select('id').where('erasing_at', 'is not', null).execute()
  expect(await marked()).toEqual([{ id: free.runId }])
  await endRun(world, fork.runId)
  expect([await markOne(), await markOne()]).toEqual([1, 0])
  expect(await marked()).toHaveLength(3)
})
