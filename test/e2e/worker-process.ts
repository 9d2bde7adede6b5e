import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { startProcess, type RunningProcess } from '#local/child-process.ts'
import { onTestFinished } from 'vitest'
import { useScratchFolder } from '../support/scratch.ts'
import type { WorkflowWorld } from './workflow-world.ts'

/** A worker in a process of its own, which can be stopped and killed. It goes with the test. */
export async function startWorkerProcess(world: WorkflowWorld, env: NodeJS.ProcessEnv = {}): Promise<RunningProcess> {
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
  onTestFinished(async () => {
    worker.kill('SIGCONT')
    worker.kill('SIGKILL')
    await worker.exited
  })
  return worker
}
