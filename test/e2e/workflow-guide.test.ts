import { readFile } from 'node:fs/promises'
import { readReport } from '#db/report.ts'
import { expect, test } from 'vitest'
import { createWorkflowWorld } from './workflow-world.ts'

test("the guide's example is the file that is run here", async () => {
  const guide = await readFile(new URL('../../docs/writing-an-agent.md', import.meta.url), 'utf8')
  const example = await readFile(new URL('agents/second-opinion.ts', import.meta.url), 'utf8')
  expect(guide).toContain(`\`\`\`ts\n${example}\`\`\`\n`)
})

test("the guide's example asks for opinions, has them compared, and asks its owner when they differ", async () => {
  const world = await createWorkflowWorld([])
  await world.startWorker()
  const runId = await world.startAgent('secondOpinion', { question: 'How long does a server wait?', opinions: 3 })
  const run = await world.until(runId, ['completed', 'paused', 'failed'])
  expect(run.state === 'paused' ? run.reason : run.state).toMatch(/^(input|completed)$/)
  const report = await readReport(world.db, world.scope, runId)
  expect(report?.calls.map(({ path, state }) => [path, state]).toSorted()).toEqual([
    ['opinion/0', 'answered'],
    ['opinion/1', 'answered'],
    ['opinion/2', 'answered'],
    ['verdict', 'answered'],
  ])
})
