import { execFile } from 'node:child_process'
import { stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { isRoot } from './cache.ts'

export interface Account {
  readonly uid: number
  readonly gid: number
}

/** Postgres asks for a user that is not root and has a passwd entry, nothing more: no user has to be created. */
const CANDIDATES = ['postgres', 'nobody'] as const
const ID_TIMEOUT_MS = 10_000
const OTHERS_MAY_ENTER = 0o001

/** The user Postgres runs as: undefined means ourselves, unless we are root, whom Postgres refuses. */
export async function findPostgresAccount(): Promise<Account | undefined> {
  if (!isRoot()) return undefined
  for (const name of CANDIDATES) {
    const [uid, gid] = await Promise.all([findId('-u', name), findId('-g', name)])
    if (uid !== undefined && gid !== undefined) return { uid, gid }
  }
  throw new Error(`Postgres does not run as root: add a user named ${CANDIDATES.join(' or ')}, or be another user.`)
}

/** Fails early, with a sentence, where the account could not walk to its folder. */
export async function requireEnterable(folder: string): Promise<void> {
  for (let path = folder; path !== dirname(path); path = dirname(path)) {
    const { mode } = await stat(path)
    if ((mode & OTHERS_MAY_ENTER) !== 0) continue
    throw new Error(
      `As root, Postgres runs as another user, who cannot enter ${path}: ` +
        'point PURSER_CACHE_DIR and PURSER_DATA_DIR to folders that are open to others.',
    )
  }
}

async function findId(flag: '-u' | '-g', name: string): Promise<number | undefined> {
  try {
    const { stdout } = await promisify(execFile)('id', [flag, name], { timeout: ID_TIMEOUT_MS })
    return Number.parseInt(stdout, 10)
  } catch {
    return undefined // no such user
  }
}
