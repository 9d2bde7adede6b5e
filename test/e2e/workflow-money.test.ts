import { expect, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { inventFacts } from './invented-facts.ts'
import { createWorkflowWorld, type WorkflowWorld } from './workflow-world.ts'

/** Enough for the plan, and for no reading. In USD. */
const FOR_THE_PLAN = '0.002'
/** Enough for a reading or two, and not for all. */
const FOR_SOME_READINGS = '0.0034'

async function eventsOf({ db }: WorkflowWorld, runId: string): Promise<readonly string[]> {
  const rows = await db.selectFrom('event').select('kind').where('run_id', '=', runId).orderBy('seq').execute()
  return rows.map((row) => row.kind)
}

async function pocketOf({ db }: WorkflowWorld, runId: string) {
  const row = await db
    .selectFrom('account')
    .innerJoin('run', 'run.envelope_id', 'account.envelope_id')
    .select(['posted_credit', 'posted_debit', 'pending_debit'])
    .where('run.id', '=', runId)
    .executeTakeFirstOrThrow()
  return { balance: row.posted_credit - row.posted_debit, held: row.pending_debit }
}

async function expectEachAnsweredOnce(world: WorkflowWorld): Promise<void> {
  const answers = [...(await world.providerAnswers()).values()]
  expect(answers.length).toBeGreaterThan(0)
  expect(answers.filter((times) => times !== 1)).toEqual([])
}

test('a run without money pauses once, however many calls were refused, and goes on after a top-up where it stopped', async () => {
  const { question, year, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  const runId = await world.start(question, { direct: FOR_THE_PLAN })
  const paused = await world.until(runId, ['paused', 'completed', 'failed'])
  expect(paused).toMatchObject({ state: 'paused', reason: 'money_exhausted', stop: { currency: 'USD' } })
  await world.topUp(runId, '1')
  const run = await world.until(runId, ['completed', 'failed'])
  expect(run).toMatchObject({ state: 'completed', output: { found: true, answer: expect.stringContaining(year) } })
  expect((await eventsOf(world, runId)).filter((kind) => kind === 'run.paused')).toHaveLength(1)
  await expectEachAnsweredOnce(world)
  await world.keepHistory(runId, 'paused-and-topped-up')
})

test('a top-up too small for the next call leads to another pause, and a second one ends it', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  const runId = await world.start(question, { direct: FOR_THE_PLAN })
  await world.until(runId, ['paused'])
  await world.topUp(runId, '0.0001')
  await pollUntil(async () => (await eventsOf(world, runId)).filter((kind) => kind === 'run.paused').length === 2, {
    what: 'the run is paused again',
  })
  await world.topUp(runId, '1')
  expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({ state: 'completed' })
  await expectEachAnsweredOnce(world)
})

test('money that comes between a refusal and its pause is not lost', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  for (let round = 0; round < 4; round += 1) {
    const runId = await world.start(question, { direct: FOR_THE_PLAN })
    await pollUntil(
      () => world.db.selectFrom('refusal').select('hold_id').where('run_id', '=', runId).executeTakeFirst(),
      { what: 'a call is refused', intervalMs: 1 },
    )
    await world.topUp(runId, '1')
    expect(await world.until(runId, ['completed', 'failed'])).toMatchObject({ state: 'completed' })
  }
})

test('a run that may not wait ends with the limit, with what it found until then, and gives the rest back', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  const runId = await world.start(question, { direct: FOR_SOME_READINGS, onExhausted: 'cancel' })
  const run = await world.until(runId, ['cancelled', 'completed', 'failed'])
  expect(run).toMatchObject({
    state: 'cancelled',
    reason: 'money_exhausted',
    stop: { limit: 'direct pocket', currency: 'USD' },
    output: { partial: true, answer: null, citations: [{ n: 1 }, { n: 2 }] },
  })
  expect(await pocketOf(world, runId)).toEqual({ balance: 0n, held: 0n })
  expect(await eventsOf(world, runId)).not.toContain('run.paused')
  await expectEachAnsweredOnce(world)
  await world.keepHistory(runId, 'cancelled-by-money')
})

test('research that is stopped answers from what it has read, out of its reserve', async () => {
  const { question, year, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  const runId = await world.start(question, { direct: '0.0068', onExhausted: 'cancel', wrapUpPercent: 50 })
  const run = await world.until(runId, ['partial', 'cancelled', 'completed', 'failed'])
  expect(run).toMatchObject({
    state: 'partial',
    reason: 'money_exhausted',
    output: { found: true, partial: true, answer: expect.stringContaining(year), citations: [{ n: 1 }, {}] },
  })
  await expectEachAnsweredOnce(world)
})

test('a pause that nobody ends before its deadline ends the run as partial', async () => {
  const { question, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  const runId = await world.start(question, { direct: FOR_THE_PLAN, pauseDeadlineSeconds: 1 })
  const run = await world.until(runId, ['partial', 'completed', 'failed'])
  expect(run).toMatchObject({ state: 'partial', reason: 'pause_expired', output: { partial: true, citations: [] } })
  expect(await pocketOf(world, runId)).toEqual({ balance: 0n, held: 0n })
  await world.keepHistory(runId, 'pause-expired')
})
