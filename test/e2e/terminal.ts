import { spawn } from 'node:child_process'
import { onTestFinished } from 'vitest'
import { pollUntil } from '../support/poll.ts'

const PATIENCE_MS = 60_000

/** A person's terminal: a real one. */
export interface Terminal {
  /** All that was ever written on it. */
  readonly seen: () => string
  type(text: string): void
  /** Waits for what is written from now on, behind what the last such call has found. */
  until(pattern: RegExp): Promise<void>
  /** As one closes a window: the terminal is gone at once. */
  close(): void
  /** With which code its command has ended. */
  readonly ended: Promise<number | null>
}

/** A shell in whose prompt this was typed. */
export async function typeInShell(env: NodeJS.ProcessEnv, line: string): Promise<Terminal> {
  const terminal = openTerminal(env, 'bash --noprofile --norc -i')
  await terminal.until(/ready> /)
  terminal.type(`${line}\n`)
  return terminal
}

export function openTerminal(env: NodeJS.ProcessEnv, command: string): Terminal {
  const terminal = spawn('script', ['-qec', `stty rows 24 columns 100; exec ${command}`, '/dev/null'], {
    env: { ...process.env, ...env, TERM: 'xterm', SHELL: '/bin/sh', PS1: 'ready> ' },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  onTestFinished(() => void terminal.kill('SIGKILL'))
  let seen = ''
  let from = 0
  terminal.stdout.setEncoding('utf8').on('data', (text: string) => (seen += text))
  // Typed into a terminal that is gone.
  terminal.stdin.on('error', () => {})
  return {
    seen: () => seen,
    type: (text) => void terminal.stdin.write(text),
    until: async (pattern) => {
      const found = await pollUntil(() => pattern.exec(seen.slice(from)) ?? undefined, {
        what: String(pattern),
        deadlineMs: PATIENCE_MS,
      }).catch((error: unknown) => {
        throw new Error(`It was written: ${JSON.stringify(seen.slice(from))}`, { cause: error })
      })
      from += found.index + found[0].length
    },
    close: () => void terminal.kill('SIGKILL'),
    ended: new Promise((resolve) => terminal.once('close', resolve)),
  }
}

/** As one argument of a shell. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}
