#!/usr/bin/env node
/**
 * The command `purser`: runs src/cli/main.ts with the Node 24 of the npm package `node`, whatever Node started this
 * file and whatever folder it was started from. Working directory, terminal, signals and exit code are the caller's.
 */
import { spawn } from 'node:child_process'
import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** npm links to this file from `node_modules/.bin`: packages are looked for where it really is. */
const self = realpathSync(fileURLToPath(import.meta.url))
const node = findNode()

if (node === undefined) {
  const checkout = dirname(dirname(dirname(self)))
  process.stderr.write(`purser: its packages are not installed. Run \`npm ci\` in ${checkout} first.\n`)
  process.exit(1)
}

const child = spawn(node, [join(dirname(self), 'main.ts'), ...process.argv.slice(2)], { stdio: 'inherit' })

/** Ctrl-C in a terminal reaches the child by itself, because it is in the same group: it must not come twice. */
const isForwarded = (signal) => !(['SIGINT', 'SIGQUIT'].includes(signal) && isInForeground())
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2']) {
  process.on(signal, () => {
    if (isForwarded(signal)) child.kill(signal)
  })
}

child.once('error', (error) => {
  process.stderr.write(`purser: ${node} could not be started: ${error.message}\n`)
  process.exit(1)
})
child.once('exit', (code, signal) => {
  if (signal === null) process.exit(code ?? 1)
  process.removeAllListeners(signal)
  process.kill(process.pid, signal)
})

/** As in exec-job.ts, which the Node that started this file may be too old to read. */
function isInForeground() {
  try {
    const stat = readFileSync('/proc/self/stat', 'utf8')
    const [, , group, , , foregroundGroup] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return group === foregroundGroup
  } catch {
    return process.stdin.isTTY
  }
}

function findNode() {
  try {
    const path = join(dirname(createRequire(self).resolve('node/package.json')), 'bin', 'node')
    return existsSync(path) ? path : undefined
  } catch {
    return undefined
  }
}
