import { spawn, type ChildProcess } from 'node:child_process'
import { constants } from 'node:os'
import { fileURLToPath } from 'node:url'
import { isInForeground } from './exec-job.ts'

/** How a command ended. */
export type CommandEnd =
  | { readonly kind: 'exited'; readonly code: number }
  | { readonly kind: 'signalled'; readonly signal: NodeJS.Signals }
  | { readonly kind: 'not_found' }
  | { readonly kind: 'not_started'; readonly detail: string }

/** Of shells: there is no such command, or it is there and cannot be started. */
const NOT_FOUND_CODE = 127
const NOT_STARTED_CODE = 126
/** What dies of a signal is gone long before; this is for one that it ignores. */
const DYING_MS = 1_000

const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const
/** A terminal sends these to all that run in its foreground: the command has them already. */
const FROM_TERMINAL: ReadonlySet<string> = new Set(['SIGINT', 'SIGQUIT'])

const CHECKOUT = fileURLToPath(new URL('../../', import.meta.url))

/** What is left to do without a command is done by then, unless nobody answers. */
const LEAVING_MS = 3_000

/**
 * Hands signals to the command while it is there; one that came before keeps it from being started. One that finds no
 * command means what is done without it, and ends that soon.
 */
export class SignalRelay {
  #child: ChildProcess | undefined
  #early: NodeJS.Signals | undefined
  #leaving: NodeJS.Timeout | undefined
  readonly #given = new AbortController()
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    if (!this.#child) this.#early ??= signal
    if (!this.#child || isOver(this.#child))
      this.#leaving ??= setTimeout(() => this.#given.abort(new Error(`${signal} came meanwhile.`)), LEAVING_MS)
    else if (!(FROM_TERMINAL.has(signal) && isInForeground())) this.#child.kill(signal)
  }

  constructor() {
    for (const signal of FORWARDED) process.on(signal, this.#onSignal)
  }

  /** Aborted when nobody is to wait any longer. */
  get given(): AbortSignal {
    return this.#given.signal
  }

  get early(): NodeJS.Signals | undefined {
    return this.#early
  }

  relayTo(child: ChildProcess): void {
    this.#child = child
  }

  /** From here on signals have their usual effect. */
  close(): void {
    clearTimeout(this.#leaving)
    for (const signal of FORWARDED) process.off(signal, this.#onSignal)
  }
}

function isOver({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null
}

export interface Started {
  readonly process: ChildProcess
  readonly ended: Promise<CommandEnd>
}

/**
 * Starts the command where its caller stands, with the caller's own terminal. Of a command that is not there this is told
 * as its end; where there can be no process at all it is returned at once.
 */
export function startCommand(
  [program, ...args]: readonly [string, ...string[]],
  env: NodeJS.ProcessEnv,
): Started | CommandEnd {
  const cwd = callersFolder(env)
  let child: ChildProcess
  try {
    child = spawn(program, args, { cwd, env: { ...env, ...(cwd !== undefined && { PWD: cwd }) }, stdio: 'inherit' })
  } catch (error) {
    // Node throws most of what the system says, as of a file where the path has a folder, or of too long a list of arguments.
    return { kind: 'not_started', detail: error instanceof Error ? error.message : String(error) }
  }
  const ended = new Promise<CommandEnd>((resolve) => {
    // Also told of a signal that may not be sent, as to a command of another user: that one goes on.
    child.on('error', (error) => {
      if (child.pid !== undefined) return
      const isMissing = 'code' in error && error.code === 'ENOENT'
      resolve(isMissing ? { kind: 'not_found' } : { kind: 'not_started', detail: error.message })
    })
    child.once('exit', (code, signal) => {
      resolve(signal === null ? { kind: 'exited', code: code ?? 1 } : { kind: 'signalled', signal })
    })
  })
  return { process: child, ended }
}

/** npm starts what it runs in the folder of the package, and says where it was called. Undefined in a folder that is gone. */
function callersFolder({ INIT_CWD: called }: NodeJS.ProcessEnv): string | undefined {
  let cwd: string
  try {
    cwd = process.cwd()
  } catch {
    return undefined
  }
  return `${cwd}/` === CHECKOUT && called ? called : cwd
}

/**
 * What clients read the model from that they ask for. Claude Code has names of its own for what it asks of small models and of
 * sub-agents, and none of those it would ask for by itself is in the catalog (code.claude.com/docs/en/model-config).
 */
const MODEL_NAMES = [
  'OPENAI_MODEL',
  'ANTHROPIC_MODEL',
  'ANTHROPIC_DEFAULT_OPUS_MODEL',
  'ANTHROPIC_DEFAULT_SONNET_MODEL',
  'ANTHROPIC_DEFAULT_HAIKU_MODEL',
  'ANTHROPIC_SMALL_FAST_MODEL',
  'CLAUDE_CODE_SUBAGENT_MODEL',
] as const

/**
 * Clients prefer the token to the key, and it is for another address; their custom headers may have another key too, and
 * none of them is handed on. Claude Code asks a cloud, for money that is in no envelope, where one of the others is set.
 */
const LEADING_ELSEWHERE: ReadonlySet<string> = new Set([
  'ANTHROPIC_AUTH_TOKEN',
  'ANTHROPIC_CUSTOM_HEADERS',
  'OPENAI_CUSTOM_HEADERS',
  'CLAUDE_CODE_USE_BEDROCK',
  'CLAUDE_CODE_USE_VERTEX',
  'CLAUDE_CODE_USE_FOUNDRY',
])

/** What the command is to know: where to ask, and with which key; and no key that could spend more. */
export function commandEnvironment(
  env: NodeJS.ProcessEnv,
  run: { readonly id: string; readonly url: string; readonly secret: string; readonly model: string | undefined },
): NodeJS.ProcessEnv {
  const { id, url, secret, model } = run
  const others = Object.fromEntries(Object.entries(env).filter(([name]) => !LEADING_ELSEWHERE.has(name)))
  return {
    ...others,
    OPENAI_BASE_URL: `${url}/v1`,
    // As clients called it before, and LangChain still does.
    OPENAI_API_BASE: `${url}/v1`,
    OPENAI_API_KEY: secret,
    ANTHROPIC_BASE_URL: url,
    ANTHROPIC_API_KEY: secret,
    ...(model !== undefined && Object.fromEntries(MODEL_NAMES.map((name) => [name, model]))),
    PURSER_URL: url,
    PURSER_KEY: secret,
    PURSER_RUN_ID: id,
  }
}

/** Ends this process as the command ended: by the same signal, or answers its code. Node starts a debugger at SIGUSR1. */
export async function endLike(end: CommandEnd): Promise<number> {
  if (end.kind === 'not_found') return NOT_FOUND_CODE
  if (end.kind === 'not_started') return NOT_STARTED_CODE
  if (end.kind === 'exited') return end.code
  if (end.signal !== 'SIGUSR1') {
    process.kill(process.pid, end.signal)
    await new Promise((resolve) => setTimeout(resolve, DYING_MS))
  }
  return 128 + constants.signals[end.signal]
}
