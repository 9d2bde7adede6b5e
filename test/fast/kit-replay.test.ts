import { globSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bundleWorkflowCode, DefaultLogger, Runtime, Worker } from '@temporalio/worker'
import { beforeAll, expect, test } from 'vitest'
import { readHistory } from '../replay/history-file.ts'

const logger = new DefaultLogger('ERROR')
const histories = globSync(fileURLToPath(new URL('../replay/histories/*.json.gz', import.meta.url)))
let workflowBundle: Awaited<ReturnType<typeof bundleWorkflowCode>>

beforeAll(async () => {
  Runtime.install({ logger })
  const workflowsPath = fileURLToPath(new URL('../e2e/agents/index.ts', import.meta.url))
  workflowBundle = await bundleWorkflowCode({ workflowsPath, logger })
})

test('every scenario has a recorded history', () => {
  expect(histories.map((path) => basename(path, '.json.gz')).toSorted()).toEqual([
    'answered',
    'asked-and-answered',
    'asked-in-vain',
    'cancelled',
    'cancelled-by-money',
    'cancelled-gracefully',
    'cancelled-in-temporal',
    'cancelled-while-waiting',
    'cancelled-while-wrapping-up',
    'children',
    'children-cancelled',
    'downgraded',
    'exhausted-at-a-step',
    'external-ended',
    'external-idle',
    'failed',
    'map-asked-to-repeat',
    'map-cancelled',
    'map-cancelled-while-waiting',
    'map-paused-and-topped-up',
    'map-waited-for-its-provider',
    'not-found',
    'out-of-time',
    'pause-expired',
    'pause-of-a-family-expired',
    'paused-and-topped-up',
    'rolled-over',
    'wrapped-up',
  ])
})

test.each(histories.map((path) => ({ scenario: basename(path, '.json.gz'), path })))(
  'a run that was recorded as "$scenario" would go on with the code of today',
  async ({ path }) => {
    await expect(Worker.runReplayHistory({ workflowBundle }, await readHistory(path))).resolves.toBeUndefined()
  },
)
