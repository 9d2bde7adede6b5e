import { executeCall } from '#calls/execute.ts'
import type { CallRequest, CallResult } from '#calls/call.ts'
import type { RunningEngine } from '#calls/start-engine.ts'
import { runFacts } from '#db/run.ts'
import type { Tenant, TestApi } from './api.ts'
import { useSandbox } from './sandbox.ts'
import { worldOn, type World } from './world.ts'

/** Runs of the API whose calls a test makes in place of their workflows. */
export interface ApiEngine {
  readonly world: World
  readonly engine: RunningEngine
  readonly call: (runId: string, path: string, change?: Partial<CallRequest>) => Promise<CallResult>
}

export async function useEngine(api: TestApi, { projectId }: Tenant): Promise<ApiEngine> {
  const world = worldOn({ database: api.database, scope: { projectId }, sandbox: await useSandbox() })
  const engine = await world.startEngine()
  return {
    world,
    engine,
    async call(runId, path, change = {}) {
      const facts = await runFacts(api.db, runId)
      return executeCall(engine, {
        ...facts,
        path,
        body: {
          messages: [{ role: 'user', content: `<passage id="p1">Built in 1711.</passage> When, ${path}?` }],
          maxTokens: 200,
        },
        signal: new AbortController().signal,
        deadlineMs: Date.now() + 540_000,
        ...change,
      })
    },
  }
}
