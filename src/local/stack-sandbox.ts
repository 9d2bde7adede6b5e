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

/** The same, as one may end it that starts it again. */
export interface OpenSandbox extends RunningSandbox {
  kill(signal: NodeJS.Signals): void
}

const ENTRY = fileURLToPath(new URL('../sandbox/main.ts', import.meta.url))
const KEY_BYTES = 18

export async function startSandboxProcess(options: {
  readonly env: NodeJS.ProcessEnv
  readonly dataDir: string
  readonly logFile: string
}): Promise<RunningSandbox> {
  const { env, dataDir, logFile } = options
  const requestLog = join(dataDir, 'logs', 'sandbox-requests.jsonl')
  await rm(requestLog, { force: true }) // the provider's own book, of one start each
  return openSandbox({ env, logFile, requestLog, port: 0, apiKey: makeKey(), controlKey: makeKey() })
}

/** Starts a sandbox with what is given, such as what an earlier one had: its book goes on then. */
export async function openSandbox(options: {
  readonly env: NodeJS.ProcessEnv
  readonly logFile: string
  readonly requestLog: string
  /** 0 for a free one. */
  readonly port: number
  readonly apiKey: string
  readonly controlKey: string
}): Promise<OpenSandbox> {
  const { env, logFile, requestLog, port, apiKey, controlKey } = options
  const running = await startProcess({
    name: 'sandbox',
    entry: ENTRY,
    env: {
      ...env,
      SANDBOX_PORT: String(port),
      SANDBOX_KEY: apiKey,
      SANDBOX_CONTROL_KEY: controlKey,
      SANDBOX_LOG_FILE: requestLog,
    },
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
    kill: (signal) => running.kill(signal),
    stop: () => running.stop(),
  }
}

function makeKey(): string {
  return randomBytes(KEY_BYTES).toString('base64url')
}
