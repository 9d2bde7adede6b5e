import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startProcess } from '#local/child-process.ts'
import { expect, onTestFinished, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { inventFacts } from './invented-facts.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

async function startWorkerProcess(world: WorkflowWorld, env: NodeJS.ProcessEnv) {
  const folder = await useScratchFolder()
  const worker = await startProcess({
    name: 'worker',
    entry: fileURLToPath(new URL('../../src/worker.ts', import.meta.url)),
    env: {
      ...process.env,
      PURSER_DATABASE_URL: world.database.appUrl,
      PURSER_PROVIDERS: JSON.stringify([{ name: 'sandbox', baseUrl: world.sandbox.url, apiKey: 'sandbox-key' }]),
      PURSER_TASK_QUEUE: world.taskQueue,
      TEMPORAL_ADDRESS: world.temporalAddress,
      ...env,
    },
    logFile: join(folder, 'worker.log'),
  })
  onTestFinished(() => worker.stop())
  return worker
}

async function openRequests(world: WorkflowWorld, runId: string): Promise<number> {
  const rows = await world.db.selectFrom('attempt').select('state').where('run_id', '=', runId).execute()
  return rows.filter(({ state }) => state === 'sent').length
}

test('a worker process that is told to end finishes what it can within its drain, settles the rest, and exits with 0', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  const worker = await startWorkerProcess(world, { PURSER_DRAIN_TIMEOUT_MS: '500' })
  expect(worker.ready).toEqual({ pid: worker.pid })
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { delayFirstByteMs: 120_000, times: 1 })
  const runId = await world.start(question)
  await pollUntil(async () => (await openRequests(world, runId)) === 1, { what: 'a request is open' })
  worker.kill('SIGTERM')
  expect(await worker.exited).toEqual({ code: 0, signal: null })
  expect(await openRequests(world, runId)).toBe(0)
  await startWorkerProcess(world, {})
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({ state: 'completed' })
})
