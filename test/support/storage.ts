import type { Storage } from '#contracts/names.ts'
import { changeProject } from '#db/project.ts'
import { beginClosing, finishRun } from '#db/run-end.ts'
import { eraseDue, type Erased } from '#db/erasure.ts'
import { sql } from 'kysely'
import { expect } from 'vitest'
import { asAdmin } from './admin.ts'
import type { World } from './world.ts'

type OnDatabase = Pick<World, 'database' | 'db'>

/** How the project of a world keeps its texts. */
export async function keep(world: World, storage: Storage, keepDays: number | null = null): Promise<void> {
  await changeProject(world.db, world.scope, { storage, keepDays })
}

/** Ends a run that has no workflow. */
export async function endRun(world: Pick<World, 'db' | 'scope'>, runId: string, output: unknown = null): Promise<void> {
  const end = { state: 'completed', reason: 'finished', detail: 'done' } as const
  await beginClosing(world.db, world.scope, { runId, from: 'any', reason: 'finished', detail: 'done' })
  expect(await finishRun(world.db, world.scope, { runId, end, output })).toMatchObject({ finished: true })
}

/** Puts whatever is over, and every payload, so far into the past. */
export async function letPass(world: OnDatabase, interval: string): Promise<void> {
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    await client.query(`update payload set created_at = created_at - $1::interval`, [interval])
    await client.query(`update run set finished_at = finished_at - $1::interval where finished_at is not null`, [
      interval,
    ])
  })
}

/** Erases what is due until nothing is. */
export async function eraseAll(world: OnDatabase): Promise<Omit<Erased, 'marked'>> {
  const sum = { payloads: 0, runs: 0 }
  for (;;) {
    const { marked, payloads, runs } = await eraseDue(world.db)
    if (marked + payloads + runs === 0) return sum
    sum.payloads += payloads
    sum.runs += runs
  }
}

/** The tables in which a text stands, wherever in a row. */
export async function tablesWith(world: OnDatabase, text: string): Promise<readonly string[]> {
  const { rows } = await sql<{ name: string }>`
    select relname as name from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1
  `.execute(world.db)
  const found: string[] = []
  await asAdmin(world, async (client) => {
    for (const { name } of rows) {
      const answer = await client.query(`select from ${name} t where strpos(to_jsonb(t)::text, $1) > 0 limit 1`, [text])
      if (answer.rowCount === 1) found.push(name)
    }
  })
  return found
}
