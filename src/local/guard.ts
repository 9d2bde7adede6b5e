import { type ChildProcess, spawn } from 'node:child_process'
import { Socket } from 'node:net'

/**
 * Waits for the end of its standard input, which the kernel closes however its owner ends (SIGKILL included), then
 * ends the guarded process: first politely, after ten seconds for good. It also ends a process that is stopped or
 * whose event loop hangs, which a watch inside that process could not do.
 */
const GUARD_SCRIPT = `
read -r _
kill -s "$2" "$1" 2>/dev/null || exit 0
kill -s CONT "$1" 2>/dev/null
tries=0
while [ $tries -lt 100 ] && kill -0 "$1" 2>/dev/null; do sleep 0.1; tries=$((tries + 1)); done
kill -s KILL "$1" 2>/dev/null
`

/** Ends process `pid` with `signal` (a name without `SIG`) as soon as this process is gone. */
export function guardProcess(pid: number, signal: 'INT' | 'TERM'): ChildProcess {
  const guard = spawn('/bin/sh', ['-c', GUARD_SCRIPT, 'purser-guard', String(pid), signal], {
    detached: true, // a Ctrl-C in the terminal must not reach it before its owner has shut down in order
    stdio: ['pipe', 'ignore', 'ignore'],
    cwd: '/',
  })
  guard.unref()
  if (guard.stdin instanceof Socket) guard.stdin.unref()
  return guard
}
