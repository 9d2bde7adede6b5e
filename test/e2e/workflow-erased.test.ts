import { startHistoryEraser } from '#api/history-eraser.ts'
import { eraseDue } from '#db/erasure.ts'
import { WorkflowNotFoundError, type WorkflowHandle } from '@temporalio/client'
import { expect, onTestFinished, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { eraseAll, keep, letPass, tablesWith } from '../support/storage.ts'
import { inventFacts } from './invented-facts.ts'
import { createWorkflowWorld } from './workflow-world.ts'

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
  const warnings: unknown[] = []
  const eraser = startHistoryEraser({
    db,
    client,
    log: { warn: (each: unknown) => void warnings.push(each) },
    roundMs: 100,
  })
  onTestFinished(() => eraser.stop())
  const isGone = () =>
    handle.describe().then(
      () => false,
      (error: unknown) => error instanceof WorkflowNotFoundError,
    )
  await pollUntil(isGone, { what: 'Temporal has forgotten it', deadlineMs: 60_000 })
  const isMarked = async () => {
    const row = await db.selectFrom('run').select('history_erased_at').where('id', '=', runId).executeTakeFirstOrThrow()
    return row.history_erased_at !== null
  }
  await pollUntil(isMarked, { what: 'it is marked' })
  expect(warnings).toEqual([])
  await expectVerified(world)
}, 240_000)

/** Everything that workflow and activities were told and answered, as Temporal keeps it. */
async function textOf(handle: WorkflowHandle): Promise<string> {
  const history = JSON.stringify(await handle.fetchHistory())
  return [...history.matchAll(/"data":"([^"]*)"/g)].map(([, data]) => Buffer.from(data ?? '', 'base64')).join('\n')
}
