import { spawnSync, type ChildProcess } from 'node:child_process'
import { openSync } from 'node:fs'
import { createInterface } from 'node:readline/promises'
import { ReadStream } from 'node:tty'
import { randomUUID } from 'node:crypto'
import type { PurserClient } from '#client/purser-client.ts'
import type { BalanceClass } from '#contracts/names.ts'
import { inOneSentence, type Refused } from './exec-watch.ts'
import { isAmount } from './order-values.ts'
import type { Screen } from './screen.ts'

/** Asks on the terminal for more money, and moves it into the run. Whether that was done. */
export async function askForMoney(
  api: PurserClient,
  asking: {
    readonly runId: string
    readonly child: ChildProcess
    readonly err: Screen
    readonly balanceClass: BalanceClass
    /** Aborted when the command is over. */
    readonly signal: AbortSignal
  },
  refused: Refused,
): Promise<boolean> {
  const { runId, child, err, balanceClass, signal } = asking
  err.line(`\npurser: ${inOneSentence(refused)}`)
  for (;;) {
    const amount = await askTerminal(child, `purser: Top up by how many ${refused.unit}? (Enter: by nothing) `)
    if (amount === undefined || amount === '') return false
    if (!isAmount(amount)) {
      err.line('purser: Write a decimal, such as 0.50.')
      continue
    }
    const pockets = [{ balanceClass, amount: { amount, currency: refused.unit } }]
    try {
      await api.post('/runs/{id}/top-up', {
        params: { path: { id: runId }, header: { 'idempotency-key': randomUUID() } },
        body: { pockets },
        signal,
      })
      return true
    } catch (error) {
      // Refused, or the API is away: whoever asked decides whether to try again.
      if (!(error instanceof Error) || signal.aborted) throw error
      err.line(`purser: ${error.message}`)
    }
  }
}

/** What the command is told: it has to be let go on for that. */
const INTERRUPTIONS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const

/**
 * One line from the terminal. The command is stopped meanwhile, so that it does not read the answer. Undefined when the
 * question is interrupted or left with Ctrl-D, or the command is gone.
 */
async function askTerminal(child: ChildProcess, question: string): Promise<string | undefined> {
  const terminal = openSync('/dev/tty', 'r')
  const input = new ReadStream(terminal)
  const prompt = createInterface({ input, output: process.stderr, terminal: false })
  const interrupted = new AbortController()
  const interrupt = (): void => interrupted.abort()
  for (const signal of INTERRUPTIONS) process.on(signal, interrupt)
  child.once('exit', interrupt)
  // Of Ctrl-D, or of a terminal that is gone, the question is told nothing.
  prompt.once('close', interrupt)
  input.once('error', interrupt)
  // After Ctrl-Z the shell lets all of the job go on.
  const resume = (): void => {
    child.kill('SIGSTOP')
    process.stderr.write(question)
  }
  process.on('SIGCONT', resume)
  child.kill('SIGSTOP')
  // A program that takes the whole screen has the terminal tell it each key.
  const settings = stty(terminal, '-g')
  stty(terminal, 'sane')
  try {
    return (await prompt.question(question, { signal: interrupted.signal })).trim()
  } catch (error) {
    if (interrupted.signal.aborted) return undefined
    throw error
  } finally {
    if (settings !== '') stty(terminal, settings)
    for (const signal of INTERRUPTIONS) process.off(signal, interrupt)
    process.off('SIGCONT', resume)
    child.off('exit', interrupt)
    prompt.close()
    input.destroy()
    child.kill('SIGCONT')
  }
}

function stty(terminal: number, setting: string): string {
  return spawnSync('stty', [setting], { stdio: [terminal, 'pipe', 'ignore'], encoding: 'utf8' }).stdout?.trim() ?? ''
}
