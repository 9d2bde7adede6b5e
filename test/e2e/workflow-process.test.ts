import { expect, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { inventFacts } from './invented-facts.ts'
import { startWorkerProcess } from './worker-process.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

async function openRequests(world: WorkflowWorld, runId: string): Promise<number> {
  const rows = await world.db.selectFrom('attempt').select('state').where('run_id', '=', runId).execute()
  return rows.filter(({ state }) => state === 'sent').length
}

test('a worker process that is told to end finishes what it can within its drain, settles the rest, and exits with 0', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  const worker = await startWorkerProcess(world, { PURSER_DRAIN_TIMEOUT_MS: '2000' })
  expect(worker.ready).toEqual({ pid: worker.pid })
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { hangAfterChunks: 3, times: 1 })
  const runId = await world.start(question)
  await pollUntil(async () => (await openRequests(world, runId)) === 1, { what: 'a request is open' })
  worker.kill('SIGTERM')
  expect(await worker.exited).toEqual({ code: 0, signal: null })
  expect(await openRequests(world, runId)).toBe(0)
  // What was aborted is lost: paid by what was seen of it, and for nothing.
  const booked = await world.db
    .selectFrom('transfer')
    .select(['code', 'certainty', 'use'])
    .where('run_id', '=', runId)
    .where('certainty', '<>', 'billed')
    .execute()
  expect(booked).toEqual([{ code: 'capture', certainty: 'estimated', use: 'wasted' }])
  await startWorkerProcess(world)
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({ state: 'completed' })
})

test('a call that ends within the drain is answered, and not asked again elsewhere', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  const worker = await startWorkerProcess(world, { PURSER_DRAIN_TIMEOUT_MS: '30000' })
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { delayFirstByteMs: 3_000, times: 1 })
  const runId = await world.start(question)
  await pollUntil(async () => (await openRequests(world, runId)) === 1, { what: 'a request is open' })
  worker.kill('SIGTERM')
  expect(await worker.exited).toEqual({ code: 0, signal: null })
  const attempts = await world.db.selectFrom('attempt').select('outcome').where('run_id', '=', runId).execute()
  expect(attempts).toEqual([{ outcome: 'answered' }])
  await startWorkerProcess(world)
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({ state: 'completed' })
  expect([...(await world.providerAnswers()).values()].filter((times) => times > 1)).toEqual([])
})
