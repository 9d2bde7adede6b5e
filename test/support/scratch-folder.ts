import { statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { cacheFolder, makeFolder } from '#local/cache.ts'
import { removeAbandoned, temporaryPath } from '#local/temporary-path.ts'

/** A fresh folder inside the cache, which the user Postgres runs as can enter wherever the checkout is. */
export async function makeScratchFolder(name: string): Promise<string> {
  return makeTemporary(join(cacheFolder(process.env), 'test', name))
}

/** Linux' file system in memory. */
const MEMORY = '/dev/shm'
/** Of a cluster that a suite works on: its log of up to 256 MB, and its databases (measured, the log included: 150 MB). */
const CLUSTER_BYTES = 1024 ** 3

/**
 * A fresh folder for so many clusters: in memory where there is room, so that no test waits for a disk that others use too.
 * Postgres works there as ever, and what a killed process had written is still there; only the machine must not stop.
 */
export async function makeClusterFolder(clusters: number): Promise<string> {
  const { bavail, bsize } = await statfs(MEMORY).catch(() => ({ bavail: 0, bsize: 0 }))
  const room = Math.min(bavail * bsize, process.availableMemory())
  if (room < clusters * CLUSTER_BYTES) return makeScratchFolder('services')
  return makeTemporary(join(MEMORY, `purser-test-${process.getuid?.() ?? 0}`, 'services'))
}

async function makeTemporary(base: string): Promise<string> {
  await makeFolder(dirname(base))
  await removeAbandoned(base)
  const folder = temporaryPath(base)
  await makeFolder(folder)
  return folder
}
