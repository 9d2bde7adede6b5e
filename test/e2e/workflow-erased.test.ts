import { startHistoryEraser } from '#api/history-eraser.ts'
import { eraseDue } from '#db/erasure.ts'
import { WorkflowNotFoundError, type WorkflowHandle } from '@temporalio/client'
import { expect, onTestFinished, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { endRun, eraseAll, keep, letPass, tablesWith } from '../support/storage.ts'
import { inventFacts } from './invented-facts.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

test('a run that keeps only hashes works as any other, and leaves no text here nor in Temporal', async () => {
  const { question, facts, year } = inventFacts()
  const said = `dredged in ${year}`
  const world = await createWorkflowWorld(facts)
  const { db, client } = world
  await keep(world, 'hash_only', 1)
  await world.startWorker()
  const runId = await world.start(question)
  const handle = client.workflow.getHandle(runId)
  await pollUntil(
    async () => {
      // As if each step had taken days: nothing goes while it is at work.
      await asAdmin(world, (admin) => admin.query(`update payload set created_at = created_at - interval '9 days'`))
      expect(await eraseDue(db)).toEqual({ marked: 0, payloads: 0, runs: 0 })
      const { state } = await world.getRun(runId)
      return state === 'completed'
    },
    { what: 'the run is completed', deadlineMs: 120_000 },
  )
  await handle.result()
  expect(await textOf(handle)).toContain(said)
  expect(await tablesWith(world, said)).toEqual(expect.arrayContaining(['payload', 'run']))

  await letPass(world, '1 day')
  expect(await eraseAll(world)).toMatchObject({ runs: 1 })
  expect(await tablesWith(world, said)).toEqual(['passage'])
  const warnings = startEraser(world)
  // Temporal deletes in its own time: what is marked is gone.
  await pollUntil(() => isMarked(world, runId), { what: 'it is marked', deadlineMs: 60_000 })
  expect(await isGone(handle)).toBe(true)
  expect(warnings).toEqual([])
  await expectVerified(world)
}, 240_000)

/** More than one look of the eraser takes. */
const MANY = 51

test('workflows that go on, though their runs are erased, keep no other from being forgotten', async () => {
  const world = await createWorkflowWorld([])
  const { client, taskQueue } = world
  await keep(world, 'hash_only')
  const handles: WorkflowHandle[] = []
  for (let number = 0; number <= MANY; number += 1) {
    const { runId } = await world.openRun({ direct: 1_000n })
    // No worker knows of it: it goes on for ever.
    handles.push(await client.workflow.start('research', { workflowId: runId, taskQueue, args: [{ runId }] }))
    await endRun(world, runId)
  }
  onTestFinished(async () => void (await Promise.allSettled(handles.map((handle) => handle.terminate()))))
  await letPass(world, '1 day')
  expect(await eraseAll(world)).toMatchObject({ runs: MANY + 1 })
  const youngest = await world.db.selectFrom('run').select('id').orderBy('erased_at', 'desc').executeTakeFirstOrThrow()
  await client.workflow.getHandle(youngest.id).terminate()
  const warnings = startEraser(world)
  await pollUntil(() => isMarked(world, youngest.id), { what: 'the last one is marked', deadlineMs: 60_000 })
  expect(await isGone(client.workflow.getHandle(youngest.id))).toBe(true)
  const marked = await world.db.selectFrom('run').select('id').where('history_erased_at', 'is not', null).execute()
  expect([marked.length, warnings]).toEqual([1, []])
}, 240_000)

/** Returns what it warns of. */
function startEraser({ db, client }: WorkflowWorld): readonly unknown[] {
  const warnings: unknown[] = []
  const eraser = startHistoryEraser({
    db,
    client,
    log: { warn: (each: unknown) => void warnings.push(each) },
    roundMs: 100,
  })
  onTestFinished(() => eraser.stop())
  return warnings
}

function isGone(handle: WorkflowHandle): Promise<boolean> {
  return handle.describe().then(
    () => false,
    (error: unknown) => error instanceof WorkflowNotFoundError,
  )
}

async function isMarked({ db }: WorkflowWorld, runId: string): Promise<boolean> {
  const row = await db.selectFrom('run').select('history_erased_at').where('id', '=', runId).executeTakeFirstOrThrow()
  return row.history_erased_at !== null
}

/** Everything that workflow and activities were told and answered, as Temporal keeps it. */
async function textOf(handle: WorkflowHandle): Promise<string> {
  const history = JSON.stringify(await handle.fetchHistory())
  return [...history.matchAll(/"data":"([^"]*)"/g)].map(([, data]) => Buffer.from(data ?? '', 'base64')).join('\n')
}
