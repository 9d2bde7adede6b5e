import { spawn } from 'node:child_process'
import { setPriority } from 'node:os'
import { createInterface } from 'node:readline'
import { guardProcess } from './guard.ts'

export interface ToolOptions {
  readonly command: string
  readonly args: readonly string[]
  readonly cwd: string
  readonly env: NodeJS.ProcessEnv
  readonly timeoutMs: number
  /** Called with each line the tool writes to standard error, where tools tell what they do. */
  readonly onLine?: (line: string) => void
  readonly signal?: AbortSignal
  /** How far it, and what it starts, steps back behind other processes: 0 to 19. */
  readonly niceness?: number
}

const KEPT_LINES = 5

/** Runs a tool to its end. @throws with its last lines when it fails, is aborted or takes too long. */
export function runTool(options: ToolOptions): Promise<void> {
  const { command, args, cwd, env, timeoutMs, onLine, signal, niceness } = options
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const child = spawn(command, args, {
    cwd,
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
    ...(signal === undefined ? {} : { signal }),
  })
  if (child.pid !== undefined && niceness !== undefined) setPriority(child.pid, niceness)
  const guard = child.pid === undefined ? undefined : guardProcess(child.pid, 'TERM')
  const lines: string[] = []
  createInterface(child.stderr).on('line', (line) => {
    lines.push(line)
    if (lines.length > KEPT_LINES) lines.shift()
    onLine?.(line)
  })
  child.once('error', reject)
  child.once('close', (code, exitSignal) => {
    guard?.kill('SIGKILL')
    if (code === 0) resolve()
    else reject(new Error(`${command} ended with ${exitSignal ?? code}: ${lines.join(' | ')}`))
  })
  return promise
}
