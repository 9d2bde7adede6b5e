import { readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { isRunning } from './process-table.ts'
import { temporaryPath } from './temporary-path.ts'

export interface LockOptions {
  /** Called while another process holds the lock. */
  readonly onWait?: (holder: number) => void
  readonly timeoutMs?: number
}

const BEAT_MS = 2_000
/** A holder that has not touched its lock for so long is gone, even if its id lives on in another process. */
const STALE_AFTER_MS = 30_000
const POLL_MS = 200
/** Longer than the slowest thing done under a lock, a build on a small machine. */
const TIMEOUT_MS = 30 * 60_000

/**
 * Runs a task while no other process on this machine runs one under the same lock file.
 *
 * The lock saves double work; it does not guard correctness: what is made under it comes into place by a rename, so
 * the tiny race between two processes that break the same stale lock is harmless.
 */
export async function withFileLock<Result>(
  path: string,
  task: () => Promise<Result>,
  options: LockOptions = {},
): Promise<Result> {
  const deadline = performance.now() + (options.timeoutMs ?? TIMEOUT_MS)
  while (!(await take(path))) {
    const holder = await readHolder(path)
    if (holder === undefined) continue // just released
    if (!holder.alive) await breakLock(path)
    else if (performance.now() > deadline) throw new Error(`Process ${holder.pid} still holds the lock ${path}.`)
    else {
      options.onWait?.(holder.pid)
      await delay(POLL_MS)
    }
  }
  const beat = setInterval(() => void touch(path), BEAT_MS)
  beat.unref()
  try {
    return await task()
  } finally {
    clearInterval(beat)
    await rm(path, { force: true })
  }
}

async function take(path: string): Promise<boolean> {
  try {
    await writeFile(path, String(process.pid), { flag: 'wx' })
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false
    throw error
  }
}

interface Holder {
  readonly pid: number
  readonly alive: boolean
}

async function readHolder(path: string): Promise<Holder | undefined> {
  try {
    const pid = Number.parseInt(await readFile(path, 'utf8'), 10)
    const silentMs = Date.now() - (await stat(path)).mtimeMs
    // An empty file is a lock whose holder has not written its id yet, or died before it could.
    const alive = silentMs < STALE_AFTER_MS && (Number.isNaN(pid) || isRunning(pid))
    return { pid, alive }
  } catch {
    return undefined
  }
}

async function breakLock(path: string): Promise<void> {
  const aside = temporaryPath(path)
  await rename(path, aside).catch(() => undefined) // another process was faster
  await rm(aside, { force: true })
}

function touch(path: string): Promise<void> {
  const now = new Date()
  return utimes(path, now, now).catch(() => undefined) // broken by another process while this one was stopped
}
