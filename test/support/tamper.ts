import { executeCall } from '#calls/execute.ts'
import { openChild } from '#db/envelope.ts'
import { newId } from '#db/ids.ts'
import { closeEnvelope } from '#db/ledger.ts'
import { expect } from 'vitest'
import { asAdmin } from './admin.ts'
import { expectVerified, QUESTION } from './open-attempt.ts'
import { createWorld, type World } from './world.ts'

/** Some of everything: calls of two runs, a child, a run that is over. */
export async function createBusyWorld(): Promise<World> {
  const world = await createWorld()
  const engine = await world.startEngine()
  const [run, over] = [await world.openRun({ direct: 1_000_000_000n, credit: 1_000_000_000n }), await openOver(world)]
  for (const path of ['a', 'b', 'c']) await executeCall(engine, run.request(path, QUESTION))
  const child = { envelopeId: newId(Date.now()), parentId: run.envelopeId, runId: null, kind: 'child' } as const
  const share = { id: newId(Date.now()), balanceClass: 'direct', currency: 'USD', amount: 1_000n, cap: 2_000n } as const
  expect(await openChild(world.db, world.scope, { ...child, carvings: [share] })).toBeUndefined()
  await closeEnvelope(world.db, world.scope, { envelopeId: over, reason: 'over' })
  await expectVerified(world)
  return world
}

async function openOver(world: World): Promise<string> {
  const { envelopeId } = await world.openRun({ direct: 5n })
  return envelopeId
}

/** Whoever can edit any row can drop what would refuse it. */
export const WITHOUT_CHECKS = `do $$ declare c record; begin
    for c in select conrelid::regclass as of, conname from pg_constraint
      where contype = 'c' and connamespace = 'public'::regnamespace
    loop execute format('alter table %s drop constraint %I', c.of, c.conname); end loop;
  end $$`

export async function tamper(world: World, change: string): Promise<void> {
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    await client.query(WITHOUT_CHECKS)
    const { rowCount } = await client.query(change)
    expect(rowCount).toBeGreaterThan(0)
  })
}

/** A capture in the middle of the journal. */
export const CAPTURE = `(select id from transfer where code = 'capture' order by seq offset 1 limit 1)`
