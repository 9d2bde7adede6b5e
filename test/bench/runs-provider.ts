import { startProcess } from '#local/child-process.ts'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { UPSTREAM_MODEL, type ProviderPlace } from './calls-load.ts'

const SANDBOX = fileURLToPath(new URL('../../src/sandbox/main.ts', import.meta.url))
const readySchema = z.object({ url: z.string(), controlUrl: z.string() })
const logSchema = z.array(z.object({ at: z.iso.datetime() }))

/** A provider in a process of its own whose latency can be set, and whose book can be read. */
export interface BenchProvider extends ProviderPlace {
  delay(delayFirstByteMs: number): Promise<void>
  /** Answers fall silent after their first pieces, and stay open, until it is told otherwise. */
  fallSilent(how: 'from now on' | 'no more'): Promise<void>
  /** When each request since the last look arrived, in milliseconds of this machine's clock. */
  arrivals(): Promise<readonly number[]>
  stop(): Promise<void>
}

/** @param place where it listens and what opens it, for others that are told before; left out: as it happens */
export async function startBenchProvider(
  folder: string,
  { port = 0, apiKey = randomBytes(12).toString('hex') }: { readonly port?: number; readonly apiKey?: string } = {},
): Promise<BenchProvider> {
  const controlKey = randomBytes(12).toString('hex')
  const running = await startProcess({
    name: 'sandbox',
    entry: SANDBOX,
    env: { ...process.env, SANDBOX_PORT: `${port}`, SANDBOX_KEY: apiKey, SANDBOX_CONTROL_KEY: controlKey },
    logFile: join(folder, 'sandbox.log'),
  })
  const { url, controlUrl } = readySchema.parse(running.ready)

  async function control(method: 'GET' | 'PUT' | 'DELETE', path: string, body?: unknown): Promise<string> {
    const response = await fetch(`${controlUrl}${path}`, {
      method,
      headers: { 'x-sandbox-control': controlKey, 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path} of the sandbox answered ${response.status}: ${text}`)
    return text
  }

  return {
    url,
    apiKey,
    delay: async (delayFirstByteMs) => void (await control('PUT', `/settings/${UPSTREAM_MODEL}`, { delayFirstByteMs })),
    async fallSilent(how) {
      if (how === 'no more') await control('DELETE', `/faults/${UPSTREAM_MODEL}`)
      else await control('PUT', `/faults/${UPSTREAM_MODEL}`, { hangAfterChunks: 2 })
    },
    async arrivals() {
      const log = logSchema.parse(JSON.parse(await control('GET', '/log')))
      await control('DELETE', '/log')
      return log.map(({ at }) => Date.parse(at))
    },
    stop: () => running.stop(),
  }
}
