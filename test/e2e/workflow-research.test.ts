import { randomBytes, randomInt } from 'node:crypto'
import { expect, test } from 'vitest'
import { createWorkflowWorld } from './workflow-world.ts'

/** Facts that nobody can know but from the corpus. */
function inventFacts() {
  const name = `Q${randomBytes(3).toString('hex')}`
  const year = randomInt(1500, 1900)
  return {
    name,
    year: String(year),
    facts: [
      { source: 'harbour.md', text: `The harbour of ${name} was dredged in ${year} by the engineer Mira Tandel.` },
      { source: 'bridge.md', text: `The bridge of ${name} has seven arches and was paid for by the millers.` },
      { source: 'market.md', text: 'A market is held on Thursdays, when the tide allows boats to land.' },
    ] as const,
  }
}

test('a question is answered from the corpus, with quotes that stand in it', async () => {
  const { name, year, facts } = inventFacts()
  const world = await createWorkflowWorld(facts)
  await world.startWorker()
  const runId = await world.start(`When was the harbour of ${name} dredged?`)
  const run = await world.until(runId, ['completed', 'failed'])
  expect(run).toMatchObject({ state: 'completed', reason: 'finished' })
  expect(run.output).toMatchObject({
    found: true,
    answer: expect.stringContaining(year),
    citations: [{ n: 1, source: 'harbour.md', quote: facts[0].text }],
    gaps: [],
  })
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
})
