import { readFileSync } from 'node:fs'
import type { ChildProcess } from 'node:child_process'
import type { StatusLine } from './status-line.ts'

/** Fields of /proc/PID/stat behind the name, which may have any characters (proc_pid_stat(5)). */
const STATE = 0
const GROUP = 2
const FOREGROUND_GROUP = 5

/**
 * Whether this process is what its terminal is in use by: it gets what is typed there, Ctrl-C too, whatever its own
 * input is. Where the system does not say so, as macOS, its input has to do.
 */
export function isInForeground(): boolean {
  const stat = statOf('self')
  return stat === undefined ? process.stdin.isTTY : stat[GROUP] === stat[FOREGROUND_GROUP]
}

/**
 * A command may stop itself alone, as editors do to go to the background. Its shell looks after `purser`, which is not
 * stopped by that: nobody would have the terminal. So all of its job is stopped with it, as Ctrl-Z does.
 */
export class StoppedCommand {
  readonly #child: ChildProcess
  readonly #line: StatusLine | undefined
  #wasStopped = false

  constructor(child: ChildProcess, line: StatusLine | undefined) {
    this.#child = child
    this.#line = line
  }

  /** To be called now and then. Stops this process when the command was stopped the last time too: Ctrl-Z stops both. */
  look(): void {
    const isStopped = statOf(this.#child.pid)?.[STATE] === 'T'
    const hasStayed = isStopped && this.#wasStopped
    this.#wasStopped = isStopped && !hasStayed
    if (!hasStayed || !isInForeground()) return
    this.#line?.hide()
    process.kill(0, 'SIGTSTP')
  }
}

function statOf(process: number | 'self' | undefined): readonly string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${process}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch {
    return undefined
  }
}
