import { dirname, join } from 'node:path'
import { cacheFolder, makeFolder } from '#local/cache.ts'
import { removeAbandoned, temporaryPath } from '#local/temporary-path.ts'

/** A fresh folder inside the cache, which the user Postgres runs as can enter wherever the checkout is. */
export async function makeScratchFolder(name: string): Promise<string> {
  const base = join(cacheFolder(process.env), 'test', name)
  await makeFolder(dirname(base))
  await removeAbandoned(base)
  const folder = temporaryPath(base)
  await makeFolder(folder)
  return folder
}
