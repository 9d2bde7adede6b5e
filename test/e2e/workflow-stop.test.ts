import { expect, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { inventFacts } from './invented-facts.ts'
import { startWorkerProcess } from './worker-process.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

/** Longer than any test: only an abort ends it. */
const FOR_EVER_MS = 120_000
/** What the instructions of every reading say, and of nothing else. */
const READING = 'You read passages'

async function attemptsOf({ db }: WorkflowWorld, runId: string) {
  return db.selectFrom('attempt').select(['state', 'outcome']).where('run_id', '=', runId).execute()
}

async function untilSent(world: WorkflowWorld, runId: string, count: number): Promise<void> {
  const sent = async () => (await attemptsOf(world, runId)).filter(({ state }) => state === 'sent').length >= count
  await pollUntil(sent, { what: `${count} requests are open` })
}

async function startHanging(world: WorkflowWorld, question: string): Promise<string> {
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: READING, delayFirstByteMs: FOR_EVER_MS })
  const runId = await world.start(question)
  await untilSent(world, runId, 2)
  return runId
}

test('a cancel aborts the requests that are open, and the run ends within seconds', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  const runId = await startHanging(world, question)
  await world.cancel(runId)
  const run = await pollUntil(
    async () => {
      const row = await world.getRun(runId)
      return row.state !== 'running' && row
    },
    { what: 'the run ends', deadlineMs: 5_000 },
  )
  expect(run).toMatchObject({ state: 'cancelled', reason: 'cancelled', output: { partial: true } })
  const attempts = await attemptsOf(world, runId)
  expect(attempts.filter(({ state }) => state === 'sent')).toEqual([])
  expect(attempts.filter(({ outcome }) => outcome === 'aborted').length).toBeGreaterThanOrEqual(2)
  await world.keepHistory(runId, 'cancelled')
})

test('a cancel during a stream of a minute reaches the provider within two seconds, from whichever process', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await startWorkerProcess(world)
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { delayPerChunkMs: 6_000 })
  const runId = await world.start(question)
  const begun = async () => (await world.sandbox.readLog()).some((each) => each.begun)
  await pollUntil(begun, { what: 'a stream has begun' })
  const cancelledAtMs = Date.now()
  await world.cancel(runId)
  const seen = await pollUntil(async () => (await world.sandbox.readLog()).find((each) => each.clientGoneAt), {
    what: 'the abort at the provider',
  })
  expect(Date.parse(seen.clientGoneAt ?? '') - cancelledAtMs).toBeLessThan(2_000)
  expect(await world.until(runId, ['cancelled', 'failed'])).toMatchObject({ state: 'cancelled' })
  expect((await attemptsOf(world, runId)).filter(({ state }) => state === 'sent')).toEqual([])
})

test('a cancel in Temporal is a cancel like any other', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  const runId = await startHanging(world, question)
  const workflow = world.client.workflow.getHandle(runId)
  await workflow.cancel()
  expect(await workflow.result()).toMatchObject({ state: 'cancelled', reason: 'cancelled' })
  expect(await world.getRun(runId)).toMatchObject({
    state: 'cancelled',
    reason: 'cancelled',
    output: { partial: true },
  })
  await world.keepHistory(runId, 'cancelled-in-temporal')
})

test('a paused run can be cancelled', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  const runId = await world.start(question, { direct: '0.002' })
  await world.until(runId, ['paused'])
  await world.cancel(runId)
  expect(await world.until(runId, ['cancelled', 'failed'])).toMatchObject({ state: 'cancelled', reason: 'cancelled' })
})

test('a run that is cancelled before a worker has it sends nothing', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  const runId = await world.start(question)
  await world.cancel(runId)
  await world.startWorker()
  expect(await world.until(runId, ['cancelled', 'failed'])).toMatchObject({ state: 'cancelled', reason: 'cancelled' })
  expect(await attemptsOf(world, runId)).toEqual([])
})

test('a worker that shuts down hands its open calls to another, which repeats only those', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  const first = await world.startWorker({ drainTimeoutMs: 0 })
  const runId = await startHanging(world, question)
  await world.sandbox.control('DELETE', '/faults/sandbox-steady')
  first.shutdown()
  await first.ended
  const attempts = await attemptsOf(world, runId)
  const interrupted = attempts.filter(({ outcome }) => outcome === 'network_after_send')
  expect(interrupted.length).toBeGreaterThanOrEqual(2)
  expect(attempts.filter(({ state }) => state === 'sent')).toEqual([])
  await world.startWorker()
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({ state: 'completed' })
  const answers = [...(await world.providerAnswers()).values()]
  expect(answers.filter((times) => times > 1)).toEqual(interrupted.map(() => 2))
})

test('a reading that fails for good leaves a gap, and the rest goes on', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', {
    matching: READING,
    garbage: 'not-completion',
    times: 1,
  })
  const run = await world.until(await world.start(question), ['completed', 'failed'])
  expect(run).toMatchObject({
    state: 'completed',
    output: { found: true, gaps: [expect.stringMatching(/^read\/\d: routes_exhausted$/)] },
  })
})

test('a provider that is away for a while is waited for: the run goes on where it was', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: 'step 0002', overloaded: true, times: 5 })
  const runId = await world.startAgent('steps', { count: 4 })
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({ state: 'completed', output: { done: 4 } })
  const outcomes = (await attemptsOf(world, runId)).map(({ outcome }) => outcome)
  expect(outcomes.filter((outcome) => outcome === 'overloaded')).toHaveLength(5)
  expect(outcomes.filter((outcome) => outcome === 'answered')).toHaveLength(4)
  expect([...(await world.providerAnswers()).values()]).toEqual([1, 1, 1, 1])
})

test('a run in which no reading succeeds fails, and says why', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: READING, garbage: 'not-json' })
  const runId = await world.start(question)
  const run = await world.until(runId, ['completed', 'failed'])
  expect(run).toMatchObject({
    state: 'failed',
    reason: 'call_failed',
    detail: expect.stringContaining('routes_exhausted'),
    output: { partial: true, answer: null },
  })
  await world.keepHistory(runId, 'failed')
})
