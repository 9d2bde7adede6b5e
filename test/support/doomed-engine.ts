import { startProcess } from '#local/child-process.ts'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import { useScratchFolder } from './scratch.ts'
import type { TestRun, World } from './world.ts'

const ENTRY = fileURLToPath(new URL('engine-process.ts', import.meta.url))

/** An engine in a process of its own. */
export interface DoomedEngine {
  /** It executes its calls, all at once. */
  begin(): void
  /** As `kill -9` does; at the latest when the test is over. */
  kill(): Promise<void>
}

export async function startDoomedEngine(
  { world, run }: { readonly world: World; readonly run: TestRun },
  order: {
    readonly databaseUrl: string
    readonly paths: readonly string[]
    readonly question: string
    readonly mayRepeat: number
    readonly kind?: 'openai' | 'openrouter'
  },
): Promise<DoomedEngine> {
  const { runId, envelopeId, apiKeyId } = run.request('', '')
  const { scope, sandbox } = world
  const ordered = { ...order, providerUrl: sandbox.url, scope, runId, envelopeId, apiKeyId }
  const process = await startProcess({
    name: 'engine',
    entry: ENTRY,
    env: { ...globalThis.process.env, ENGINE_ORDER: JSON.stringify(ordered) },
    logFile: join(await useScratchFolder(), 'engine.log'),
  })
  const kill = async () => {
    process.kill('SIGKILL')
    await process.exited
  }
  onTestFinished(kill)
  return { begin: () => process.kill('SIGUSR2'), kill }
}
