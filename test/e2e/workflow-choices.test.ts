import { answerQuestion } from '#db/run-pause.ts'
import { readReport } from '#db/report.ts'
import { expect, test } from 'vitest'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { requestsSeen } from '../support/world.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

async function kindsOf({ db }: WorkflowWorld, runId: string): Promise<readonly string[]> {
  const rows = await db.selectFrom('event').select('kind').where('run_id', '=', runId).orderBy('seq').execute()
  return rows.map(({ kind }) => kind)
}

async function questionOf({ db }: WorkflowWorld, runId: string) {
  return db
    .selectFrom('run_question')
    .select(['path', 'question', 'choices', 'answer'])
    .where('run_id', '=', runId)
    .execute()
}

async function answer(world: WorkflowWorld, runId: string, given: { readonly path: string; readonly answer: string }) {
  const { db, scope } = world
  await db.transaction().execute((trx) => answerQuestion(trx, scope, { runId, ...given, keyId: null }))
  await world.wake(runId)
}

test('a question pauses the run for input, and its answer is what the agent goes on with', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const runId = await world.startAgent('asker', {})
  expect(await world.until(runId, ['paused', 'completed'])).toMatchObject({
    state: 'paused',
    reason: 'input',
    detail: 'Shall I go on?',
  })
  expect(await questionOf(world, runId)).toMatchObject([{ path: 'permission', choices: ['yes', 'no'], answer: null }])
  await answer(world, runId, { path: 'permission', answer: 'yes' })
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({ output: { answer: 'yes' } })
  expect(await kindsOf(world, runId)).toEqual(expect.arrayContaining(['run.asked', 'run.paused', 'run.answered']))
  await world.keepHistory(runId, 'asked-and-answered')
})

test('a question that nobody answers in time takes its own answer, or ends the run with what there is', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const willing = await world.startAgent('asker', { waitSeconds: 1, otherwise: 'no' })
  expect(await world.until(willing, ['completed', 'failed', 'partial'])).toMatchObject({
    state: 'completed',
    output: { answer: 'no' },
  })
  const stubborn = await world.startAgent('asker', { waitSeconds: 1 })
  expect(await world.until(stubborn, ['completed', 'failed', 'partial'])).toMatchObject({
    state: 'partial',
    reason: 'pause_expired',
    output: { asked: true },
  })
  await world.keepHistory(stubborn, 'asked-in-vain')
})

test('a run that steps down goes on with the model and the balance its owner chose, and then does what follows', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const downgrade = { model: 'research', constraints: { balanceClasses: ['credit' as const] }, then: 'pause' as const }
  const choice = { onExhausted: 'downgrade' as const, downgrade, direct: '0.0002', credit: '0.0002' }
  const runId = await world.startAgent('steps', { count: 40 }, choice)
  expect(await world.until(runId, ['paused', 'completed', 'failed'])).toMatchObject({
    state: 'paused',
    reason: 'money_exhausted',
    stop: { limit: 'credit pocket' },
  })
  const kinds = await kindsOf(world, runId)
  expect(kinds.filter((kind) => kind === 'run.downgraded')).toHaveLength(1)
  const report = await readReport(world.db, world.scope, runId)
  const answered = report?.calls.filter((call) => call.state === 'answered') ?? []
  expect(new Set(answered.map(({ model }) => model))).toEqual(new Set(['steady', 'research']))
  const [first] = answered
  expect(first?.model).toBe('steady')
  expect(new Set((await requestsSeen(world.sandbox)).map(({ model }) => model))).toEqual(
    new Set(['sandbox-steady', 'sandbox-economy']),
  )
  await world.cancel(runId)
  await world.until(runId, ['cancelled'])
  await expectVerified(world)
  await world.keepHistory(runId, 'downgraded')
})

test('the time of a run ends it, aborts what is in flight, and gives back what is left', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', {
    matching: 'step 0002',
    delayFirstByteMs: 120_000,
  })
  const runId = await world.startAgent('steps', { count: 10 }, { limits: { seconds: 4, calls: 100 } })
  expect(await world.until(runId, ['partial', 'completed', 'failed'])).toMatchObject({
    state: 'partial',
    reason: 'deadline',
    output: { done: 2 },
  })
  const attempts = await world.db.selectFrom('attempt').select(['outcome', 'state']).execute()
  expect(attempts.map(({ outcome }) => outcome)).toEqual(['answered', 'answered', 'aborted'])
  const limits = await world.db.selectFrom('usage_limit').select('retired_at').where('subject_id', '=', runId).execute()
  expect(limits.map(({ retired_at: at }) => at !== null)).toEqual([true])
  await expectVerified(world)
  await world.keepHistory(runId, 'out-of-time')
})

test('a run that may repeat nothing asks before a call is sent again that may have been executed', async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: 'step 0001', garbage: 'not-json', times: 1 })
  const runId = await world.startAgent('steps', { count: 3 }, { mayRepeat: 0 })
  expect(await world.until(runId, ['paused', 'completed', 'failed'])).toMatchObject({
    state: 'paused',
    reason: 'input',
  })
  const [question] = await questionOf(world, runId)
  expect(question).toMatchObject({ path: 'step/1/repeat/1', choices: ['repeat', 'give up'] })
  await answer(world, runId, { path: 'step/1/repeat/1', answer: 'repeat' })
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({ state: 'completed', output: { done: 3 } })
  expect([...(await world.providerAnswers()).values()].filter((times) => times === 2)).toHaveLength(1)

  await world.sandbox.control('PUT', '/faults/sandbox-steady', { matching: 'step 0001', garbage: 'not-json', times: 1 })
  const other = await world.startAgent('steps', { count: 3 }, { mayRepeat: 0 })
  await pollUntil(async () => (await questionOf(world, other)).length === 1, { what: 'the run asks' })
  await answer(world, other, { path: 'step/1/repeat/1', answer: 'give up' })
  expect(await world.until(other, ['completed', 'failed'])).toMatchObject({
    state: 'failed',
    reason: 'call_failed',
    output: { done: 1 },
  })
  await expectVerified(world)
})
