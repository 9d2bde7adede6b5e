import { randomBytes } from 'node:crypto'
import { readdir, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { isRunning } from './process-table.ts'

const TEMPORARY = /^(.+)\.(\d+)-[0-9a-f]{8}\.tmp$/
/** Longer than anything we make in a temporary place takes, so that a process id used again cannot keep it. */
const ABANDONED_AFTER_MS = 60 * 60_000

/** A name beside `path` for making it out of sight; one rename then brings it into place whole. */
export function temporaryPath(path: string): string {
  return `${path}.${process.pid}-${randomBytes(4).toString('hex')}.tmp`
}

/** Removes what processes that were killed left in temporary places of `path`. */
export async function removeAbandoned(path: string): Promise<void> {
  for (const name of await readdir(dirname(path))) {
    const [, base, owner] = TEMPORARY.exec(name) ?? []
    if (base !== basename(path) || owner === undefined) continue
    const found = join(dirname(path), name)
    if (isRunning(Number(owner)) && !(await isOld(found))) continue
    await rm(found, { recursive: true, force: true })
  }
}

async function isOld(path: string): Promise<boolean> {
  const changed = await stat(path).then(
    (found) => found.mtimeMs,
    () => Date.now(), // just removed by its owner
  )
  return Date.now() - changed > ABANDONED_AFTER_MS
}
