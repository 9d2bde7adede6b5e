import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isRunning } from './process-table.ts'
import { temporaryPath } from './temporary-path.ts'

/** What a running stack leaves in its data folder, so that other commands find it. Holds keys: readable by us alone. */
export interface StackState {
  /** The process that owns the stack. */
  readonly pid: number
  readonly apiUrl: string
  readonly docsUrl: string
  /** Unknown when Temporal was not started here. */
  readonly temporalUiUrl: string | null
  readonly databaseUrl: string
  readonly operatorKey: string
}

const PRIVATE_MODE = 0o600

export async function writeStackState(dataDir: string, state: StackState): Promise<void> {
  await writePrivateFile(stackStatePath(dataDir), JSON.stringify(state, undefined, 2))
}

export async function removeStackState(dataDir: string): Promise<void> {
  await rm(stackStatePath(dataDir), { force: true })
}

/** What the stack of this data folder wrote, as it stands there; undefined when none is running. */
export async function readStackState(dataDir: string): Promise<unknown> {
  const text = await readFile(stackStatePath(dataDir), 'utf8').catch(() => undefined)
  if (text === undefined) return undefined
  const state: unknown = JSON.parse(text)
  const isOwned = typeof state === 'object' && state !== null && 'pid' in state && isRunning(Number(state.pid))
  return isOwned ? state : undefined // left behind by a stack that was killed
}

/** Comes into place whole, and is never readable by others. */
export async function writePrivateFile(path: string, text: string): Promise<void> {
  const temporary = temporaryPath(path)
  await writeFile(temporary, `${text}\n`, { mode: PRIVATE_MODE })
  await rename(temporary, path)
}

export function stackStatePath(dataDir: string): string {
  return join(dataDir, 'stack.json')
}
