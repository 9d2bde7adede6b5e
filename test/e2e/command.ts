import { spawn, type ChildProcess } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'

/** A process of the command line, as a person would start it. */
export interface CommandRun {
  readonly process: ChildProcess
  /** What it wrote so far. */
  readonly output: { out: string; err: string }
  readonly ended: Promise<CommandEnd>
}

export interface CommandEnd {
  /** The exit code, or the signal that ended it. */
  readonly code: number | NodeJS.Signals | null
  readonly out: string
  readonly err: string
}

export interface CommandOptions {
  readonly cwd?: string
  readonly env?: NodeJS.ProcessEnv
  /** The launcher to start, if not the checkout's. */
  readonly launcher?: string
}

export const checkout = fileURLToPath(new URL('../../', import.meta.url))

const LAUNCHER = join(checkout, 'src/cli/purser.js')

/** Starts `purser` under the system's own Node: packages put theirs first on the path of npm's scripts. */
export function startPurser(args: readonly string[], options: CommandOptions = {}): CommandRun {
  const { launcher = LAUNCHER, ...rest } = options
  return startCommand([systemNode(), launcher, ...args], rest)
}

export function startCommand(
  [program = '', ...args]: readonly string[],
  { cwd = '/', env = {} }: Omit<CommandOptions, 'launcher'> = {},
): CommandRun {
  const child = spawn(program, args, { cwd, env: { ...plainEnvironment(), ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  onTestFinished(() => void child.kill('SIGTERM'))
  const output = { out: '', err: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output.out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output.err += text))
  const ended = new Promise<CommandEnd>((resolve) => {
    child.once('close', (code, signal) => resolve({ code: signal ?? code, ...output }))
  })
  return { process: child, output, ended }
}

/** Without what would lead the command to another stack or provider, and without what npm and vitest set. */
function plainEnvironment(): NodeJS.ProcessEnv {
  const foreign = /^(PURSER_URL|PURSER_KEY|PURSER_DATA_DIR|PURSER_PROVIDER_.*|OPENAI_.*|NODE_OPTIONS|VITEST.*|npm_.*)$/
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !foreign.test(name)))
}

function systemNode(): string {
  const folders = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => !folder.includes('node_modules'))
  const found = folders.map((folder) => join(folder, 'node')).find(isExecutable)
  if (found === undefined) throw new Error('There is no system Node on PATH.')
  return found
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
