import { createHash } from 'node:crypto'
import { chmod, mkdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join, relative, resolve, sep } from 'node:path'

/** `0755`: as root, Postgres runs as another user, who has to walk through these folders. */
const ENTERABLE_MODE = 0o755

/** The folder for what is expensive to make and shared by every checkout: binaries, and by default data. */
export function cacheFolder(env: NodeJS.ProcessEnv): string {
  if (env['PURSER_CACHE_DIR']) return resolve(env['PURSER_CACHE_DIR'])
  if (isRoot()) return '/var/cache/purser'
  const userCache = env['XDG_CACHE_HOME'] || join(env['HOME'] || homedir(), '.cache')
  return join(resolve(userCache), 'purser')
}

/** The folder that keeps the databases and logs of one checkout between starts. */
export function dataFolder(env: NodeJS.ProcessEnv, checkout: string): string {
  if (env['PURSER_DATA_DIR']) return resolve(env['PURSER_DATA_DIR'])
  const name = createHash('sha256').update(resolve(checkout)).digest('hex').slice(0, 12)
  return join(cacheFolder(env), 'data', name)
}

/** Makes a folder with its parents; as root every folder it had to make can be entered by other users. */
export async function makeFolder(path: string): Promise<void> {
  const firstMade = await mkdir(path, { recursive: true }).catch((cause: unknown) => {
    throw new Error(`Cannot make the folder ${path}: choose another with PURSER_CACHE_DIR or PURSER_DATA_DIR.`, {
      cause,
    })
  })
  if (firstMade === undefined || !isRoot()) return
  let folder = firstMade
  await chmod(folder, ENTERABLE_MODE)
  for (const name of relative(firstMade, path).split(sep).filter(Boolean)) {
    folder = join(folder, name)
    await chmod(folder, ENTERABLE_MODE)
  }
}

export function isRoot(): boolean {
  return process.getuid?.() === 0
}
