import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type ExitStatus, startProcess } from './child-process.ts'

/** The sandbox provider in its own process, and the keys to it. */
export interface RunningSandbox {
  readonly url: string
  readonly controlUrl: string
  readonly apiKey: string
  readonly controlKey: string
  readonly exited: Promise<ExitStatus>
  stop(): Promise<void>
}

const ENTRY = fileURLToPath(new URL('../sandbox/main.ts', import.meta.url))
const KEY_BYTES = 18

export async function startSandboxProcess(options: {
  readonly env: NodeJS.ProcessEnv
  readonly dataDir: string
  readonly logFile: string
}): Promise<RunningSandbox> {
  const { env, dataDir, logFile } = options
  const apiKey = makeKey()
  const controlKey = makeKey()
  const requestLog = join(dataDir, 'logs', 'sandbox-requests.jsonl')
  await rm(requestLog, { force: true }) // the provider's own book, of one start each
  const running = await startProcess({
    name: 'sandbox',
    entry: ENTRY,
    env: { ...env, SANDBOX_KEY: apiKey, SANDBOX_CONTROL_KEY: controlKey, SANDBOX_LOG_FILE: requestLog },
    logFile,
  })
  const ready = running.ready
  if (typeof ready !== 'object' || ready === null || !('url' in ready) || !('controlUrl' in ready)) {
    throw new Error('The sandbox process did not say where it listens.')
  }
  return {
    url: String(ready.url),
    controlUrl: String(ready.controlUrl),
    apiKey,
    controlKey,
    exited: running.exited,
    stop: () => running.stop(),
  }
}

function makeKey(): string {
  return randomBytes(KEY_BYTES).toString('base64url')
}
