import { findFreePort } from '#local/free-port.ts'
import { startProcess, type RunningProcess } from '#local/child-process.ts'
import type { SandboxOptions } from '#sandbox/server.ts'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import { z } from 'zod'
import { makeTenant, useApi, type Tenant, type TestApi } from './api.ts'
import { pollUntil } from './poll.ts'
import { useSandbox, type TestSandbox } from './sandbox.ts'
import { useScratchFolder } from './scratch.ts'

const ENTRY = fileURLToPath(new URL('gateway-process-entry.ts', import.meta.url))
const readySchema = z.object({ url: z.string() })
const memorySchema = z.object({ memory: z.object({ usedBytes: z.number(), residentBytes: z.number() }) })

/** A database with a tenant, a sandbox provider, and as many API processes before it as a test wants. */
export interface GatewayStage {
  readonly api: TestApi
  readonly sandbox: TestSandbox
  readonly tenant: Tenant
  /** It goes with the test. */
  start(env?: NodeJS.ProcessEnv): Promise<GatewayProcess>
}

export interface GatewayProcess extends RunningProcess {
  /** Without `/v1`. */
  readonly url: string
  /** After a collection: what is in use, and what the process keeps of what it ever took. */
  memory(): Promise<z.infer<typeof memorySchema>['memory']>
}

export async function useGatewayStage(
  options: { readonly dollars?: string; readonly sandbox?: SandboxOptions } = {},
): Promise<GatewayStage> {
  const sandbox = await useSandbox(options.sandbox)
  const api = await useApi()
  const tenant = await makeTenant(api, api.operatorKey, options.dollars)
  return {
    api,
    sandbox,
    tenant,
    async start(env = {}) {
      const running = await startProcess({
        name: 'api',
        entry: ENTRY,
        env: {
          ...process.env,
          PURSER_DATABASE_URL: api.database.appUrl,
          PURSER_API_PORT: '0',
          PURSER_PROVIDERS: JSON.stringify([{ name: 'sandbox', baseUrl: sandbox.url, apiKey: 'sandbox-key' }]),
          PURSER_DRAIN_TIMEOUT_MS: '1000',
          TEMPORAL_ADDRESS: `127.0.0.1:${await findFreePort()}`,
          ...env,
        },
        logFile: join(await useScratchFolder(), 'api.log'),
      })
      onTestFinished(async () => {
        running.kill('SIGKILL')
        await running.exited
      })
      const { url } = readySchema.parse(running.ready)
      return { ...running, url, memory: () => measure(running) }
    },
  }
}

async function measure(running: RunningProcess): Promise<z.infer<typeof memorySchema>['memory']> {
  const saysOf = async () => (await running.readLog()).split('\n').filter((line) => line.startsWith('{"memory"'))
  const before = (await saysOf()).length
  running.kill('SIGUSR2')
  const line = await pollUntil(async () => (await saysOf())[before], { what: 'the memory', deadlineMs: 30_000 })
  return memorySchema.parse(JSON.parse(line)).memory
}

/** What a client asks. */
export interface Question {
  readonly url: string
  readonly key: string
  readonly content?: string
  readonly maxTokens?: number
  readonly stream?: boolean
  readonly signal?: AbortSignal
}

const QUESTION = '<passage id="p1">The mill was built in 1711.</passage> When was the mill built?'

/** One request of a client that repeats nothing. */
export function askChat({ url, key, content = QUESTION, maxTokens = 60, stream, signal }: Question): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'steady',
      messages: [{ role: 'user', content }],
      max_tokens: maxTokens,
      ...(stream && { stream }),
    }),
    ...(signal && { signal }),
  })
}
