import { expect, test } from 'vitest'
import { inventFacts } from './invented-facts.ts'
import { createWorkflowWorld } from './workflow-world.ts'

test('a question is answered from the corpus, with quotes that stand in it', async () => {
  const { question, year, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  const runId = await world.start(question)
  const run = await world.until(runId, ['completed', 'failed'])
  expect(run).toMatchObject({ state: 'completed', reason: 'finished' })
  expect(run.output).toMatchObject({
    found: true,
    answer: expect.stringContaining(year),
    citations: expect.arrayContaining([expect.objectContaining({ source: 'harbour.md', quote: facts[0].text })]),
    gaps: [],
  })
  await world.keepHistory(runId, 'answered')
})

test('a question that the corpus does not support is answered "not found", without a citation and without writing', async () => {
  const { facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  const question = 'Which glaciers does the Antarctic treaty protect?'
  const runId = await world.start(question)
  const run = await world.until(runId, ['completed', 'failed'])
  expect(run).toMatchObject({
    state: 'completed',
    output: { question, found: false, answer: 'not found', citations: [] },
  })
  const calls = await world.db.selectFrom('call').select('path').where('run_id', '=', runId).execute()
  expect(calls.map(({ path }) => path)).not.toContain('write')
  await world.keepHistory(runId, 'not-found')
})
