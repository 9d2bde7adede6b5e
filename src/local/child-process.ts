import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { type FileHandle, open, rename, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { makeFolder } from './cache.ts'
import { guardProcess } from './guard.ts'

export interface ExitStatus {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A process we started and own: it ends when we end, even by SIGKILL. */
export interface Child {
  readonly pid: number
  readonly exited: Promise<ExitStatus>
  hasExited(): boolean
  /** What it wrote to its log since it was started; at most the last 64 KB. */
  readLog(): Promise<string>
  kill(signal: NodeJS.Signals): void
  /** Asks it to end, ends it for good after a deadline, and waits until it is gone. */
  stop(): Promise<void>
}

export interface ChildOptions {
  readonly command: string
  readonly args: readonly string[]
  readonly env: NodeJS.ProcessEnv
  readonly logFile: string
  readonly cwd?: string
  /** Runs the process as another user; needs root. */
  readonly account?: { readonly uid: number; readonly gid: number } | undefined
  readonly stopSignal?: 'INT' | 'TERM'
  readonly stopTimeoutMs?: number
}

const STOP_TIMEOUT_MS = 20_000
const LOG_TAIL_BYTES = 64 * 1024
/** A log that has grown beyond this is set aside at the next start, so that a data folder cannot grow for ever. */
const LOG_LIMIT_BYTES = 10 * 1024 * 1024

/** Starts a process whose output goes straight to a file, so that it never waits for us to read it. */
export async function spawnChild(options: ChildOptions): Promise<Child> {
  const { command, args, env, logFile, cwd = '/', account, stopSignal = 'TERM' } = options
  await setLongLogAside(logFile)
  const log = await open(logFile, 'a')
  const logStart = (await log.stat()).size
  const child = spawn(command, args, {
    cwd,
    env,
    detached: true, // Ctrl-C in a terminal signals the whole group; the owner stops its processes in order instead
    stdio: ['ignore', log.fd, log.fd],
    ...account,
  })
  const exited = new Promise<ExitStatus>((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }))
  })
  try {
    await once(child, 'spawn')
  } finally {
    await log.close()
  }
  const { pid } = child
  if (pid === undefined) throw new Error(`${command} was started without a process id.`)

  const guard = guardProcess(pid, stopSignal)
  void exited.then(() => guard.kill('SIGKILL'))

  const stop = async () => {
    child.kill(`SIG${stopSignal}`)
    const timeout = setTimeout(() => child.kill('SIGKILL'), options.stopTimeoutMs ?? STOP_TIMEOUT_MS)
    await exited
    clearTimeout(timeout)
  }
  return {
    pid,
    exited,
    hasExited: () => child.exitCode !== null || child.signalCode !== null,
    readLog: () => readFrom(logFile, logStart),
    kill: (signal) => void child.kill(signal),
    stop,
  }
}

export interface ProcessOptions {
  /** For messages: `api`, `worker`, `sandbox`. */
  readonly name: string
  /** Path of the TypeScript file to run. */
  readonly entry: string
  readonly env: NodeJS.ProcessEnv
  readonly logFile: string
  readonly readyTimeoutMs?: number
}

export interface RunningProcess extends Child {
  readonly name: string
  /** What the process printed as `{"ready": …}`; parse it where it is used. */
  readonly ready: unknown
}

const READY_TIMEOUT_MS = 30_000
const READY_POLL_MS = 25
const SHOWN_LOG_LINES = 20

/**
 * Starts one of our own entry points with the Node that runs this one, and waits for its line `{"ready": {…}}`.
 * @throws with the last lines of its log when it ends, or stays silent, before that line.
 */
export async function startProcess(options: ProcessOptions): Promise<RunningProcess> {
  const { name, entry, env, logFile, readyTimeoutMs = READY_TIMEOUT_MS } = options
  const child = await spawnChild({ command: process.execPath, args: [entry], env, logFile, cwd: dirname(entry) })
  const deadline = performance.now() + readyTimeoutMs
  for (;;) {
    const endedBefore = child.hasExited() // read first: a line written just before the end must still be seen
    const ready = findReady(await child.readLog())
    if (ready !== undefined) return { ...child, name, ready }
    if (endedBefore) {
      const { code, signal } = await child.exited
      throw new Error(
        await describe(child, `The ${name} process ended (${signal ?? `code ${code}`}) before it was ready`),
      )
    }
    if (performance.now() > deadline) {
      child.kill('SIGKILL')
      await child.exited
      throw new Error(await describe(child, `The ${name} process was not ready after ${readyTimeoutMs} ms`))
    }
    await delay(READY_POLL_MS)
  }
}

function findReady(log: string): unknown {
  for (const line of log.split('\n').slice(0, -1)) {
    if (!line.startsWith('{"ready":')) continue
    const parsed: unknown = JSON.parse(line)
    if (typeof parsed === 'object' && parsed !== null && 'ready' in parsed) return parsed.ready
  }
  return undefined
}

async function describe(child: Child, problem: string): Promise<string> {
  const lines = (await child.readLog()).trimEnd().split('\n').slice(-SHOWN_LOG_LINES)
  return `${problem}. Its last lines:\n${lines.join('\n')}`
}

async function setLongLogAside(logFile: string): Promise<void> {
  await makeFolder(dirname(logFile))
  const size = await stat(logFile).then(
    (found) => found.size,
    () => 0,
  )
  if (size > LOG_LIMIT_BYTES) await rename(logFile, `${logFile}.old`)
}

async function readFrom(file: string, start: number): Promise<string> {
  let handle: FileHandle | undefined
  try {
    handle = await open(file, 'r')
    const { size } = await handle.stat()
    const from = Math.max(start, size - LOG_TAIL_BYTES)
    const buffer = Buffer.alloc(Math.max(0, size - from))
    await handle.read(buffer, 0, buffer.length, from)
    return buffer.toString('utf8')
  } finally {
    await handle?.close()
  }
}
