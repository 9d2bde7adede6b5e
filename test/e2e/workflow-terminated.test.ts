import { startReconciler } from '#api/reconciler.ts'
import { temporalCensus } from '#api/workflow-census.ts'
import { markDelivered, waitingCommands } from '#db/command.ts'
import { openChildRun } from '#db/child-run.ts'
import { verifyLedger } from '#db/verify.ts'
import { Client, Connection } from '@temporalio/client'
import { expect, onTestFinished, test } from 'vitest'
import { findFreePort } from '#local/free-port.ts'
import { connectionOptions } from '#api/orchestrator.ts'
import { pollUntil } from '../support/poll.ts'
import { inventFacts } from './invented-facts.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

/** Longer than any test: only an abort ends it. */
const FOR_EVER_MS = 120_000

/** The world starts workflows itself: the start is told. */
async function tellStarts({ db }: WorkflowWorld): Promise<void> {
  await db.updateTable('run').set({ admitted_at: new Date() }).execute()
  const commands = await waitingCommands(db, { limit: 99, except: [] })
  for (const { id } of commands) await markDelivered(db, id)
}

function useReconciler(world: WorkflowWorld, client = world.client) {
  const failures: unknown[] = []
  const rounds = { count: 0 }
  const census = temporalCensus({ client, taskQueue: world.taskQueue })
  const reconciler = startReconciler({
    db: world.db,
    census: {
      ...census,
      living: async () => {
        rounds.count += 1
        return census.living()
      },
    },
    lostCost: 'maximum',
    log: { warn: (failure: unknown) => void failures.push(failure) },
    monotonicMs: () => performance.now(),
    roundMs: 100,
    graceMs: 0,
  })
  onTestFinished(() => reconciler.stop())
  return { failures, rounds }
}

async function attemptsOf({ db }: WorkflowWorld, runId: string) {
  return db.selectFrom('attempt').select(['state', 'outcome']).where('run_id', '=', runId).execute()
}

async function startHanging(world: WorkflowWorld, question: string): Promise<string> {
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { delayFirstByteMs: FOR_EVER_MS, times: 1 })
  const runId = await world.start(question)
  await tellStarts(world)
  const isSent = async () => (await attemptsOf(world, runId)).some(({ state }) => state === 'sent')
  await pollUntil(isSent, { what: 'a request is open' })
  return runId
}

test('a workflow that is terminated in the middle of a call leaves a run that closes: settled, the rest home', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  const runId = await startHanging(world, question)
  const { rounds } = useReconciler(world)
  await pollUntil(() => rounds.count > 2, { what: 'the reconciler has looked at it' })
  expect(await world.getRun(runId)).toMatchObject({ state: 'running' })
  await world.client.workflow.getHandle(runId).terminate('by hand, in the page')
  expect(await world.until(runId, ['failed', 'completed', 'partial', 'cancelled'])).toMatchObject({
    state: 'failed',
    reason: 'workflow_gone',
    detail: 'Its workflow is gone: Temporal says terminated.',
  })
  expect(await attemptsOf(world, runId)).toEqual([{ state: 'resolved', outcome: 'aborted' }])
  const envelope = await world.db.selectFrom('envelope').select('gate').where('run_id', '=', runId).execute()
  expect(envelope).toEqual([{ gate: 'closed' }])
  const pockets = await world.db
    .selectFrom('account')
    .innerJoin('envelope', 'envelope.id', 'account.envelope_id')
    .select(['posted_credit', 'posted_debit', 'pending_debit'])
    .where('envelope.run_id', '=', runId)
    .execute()
  expect(pockets.map((each) => [each.posted_credit - each.posted_debit, each.pending_debit])).toEqual([[0n, 0n]])
  expect((await verifyLedger(world.db)).ok).toBe(true)
})

test('a run whose workflow nobody ever worked on closes, and before it the child that was to be started', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  const runId = await world.start(question)
  await tellStarts(world)
  const child = { runId, path: 'child', agent: 'research', input: { question, corpusId: world.corpusId } }
  const opened = await openChildRun(world.db, world.scope, child)
  const childId = opened.kind === 'opened' ? opened.runId : ''
  const { rounds } = useReconciler(world)
  await pollUntil(() => rounds.count > 2, { what: 'the reconciler has looked at it' })
  expect(await world.getRun(childId)).toMatchObject({ state: 'queued' })
  await world.client.workflow.getHandle(runId).terminate('before any worker had it')
  expect(await world.until(runId, ['failed', 'cancelled'])).toMatchObject({ state: 'failed', reason: 'workflow_gone' })
  expect(await world.getRun(childId)).toMatchObject({
    state: 'failed',
    reason: 'workflow_gone',
    detail: 'Its workflow is gone: Temporal says not found.',
  })
})

test('a Temporal that is away fails no run', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  const runId = await world.start(question)
  await tellStarts(world)
  await world.client.workflow.getHandle(runId).terminate('so that it would be gone')
  const connection = Connection.lazy({ ...connectionOptions, address: `127.0.0.1:${await findFreePort()}` })
  onTestFinished(() => connection.close())
  const { failures } = useReconciler(world, new Client({ connection }))
  await pollUntil(() => failures.length > 1, { what: 'the reconciler has tried', deadlineMs: 80_000 })
  expect(await world.getRun(runId)).toMatchObject({ state: 'queued' })
}, 120_000)
