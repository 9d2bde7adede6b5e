import { mkdir, readdir, rename, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { InstallRequest } from './program-cache.ts'
import { TEMPORAL_COMMAND } from './temporal-build.ts'
import { runTool } from './tool-run.ts'

const DOWNLOAD_TIMEOUT_MS = 10 * 60_000
/** A network without a way out may swallow packets: give up when nothing has arrived for so long. */
const STALL_TIMEOUT_MS = 20_000
const WATCH_MS = 1_000

/**
 * Lets the Temporal SDK download the program. The SDK does that only on the way to starting a server, offers no way
 * to give up and writes to standard error, so it does it in a process of its own.
 */
export async function downloadTemporal(request: InstallRequest): Promise<void> {
  const { version, env, say } = request
  const folder = join(request.folder, 'download')
  await mkdir(folder)
  say('downloading it')
  const stall = new AbortController()
  let size = 0
  let grownAt = performance.now()
  const watch = setInterval(() => {
    void folderSize(folder).then((now) => {
      if (now !== size) {
        size = now
        grownAt = performance.now()
        say(`downloading it, ${Math.round(size / 1_000_000)} MB`)
      } else if (performance.now() - grownAt > STALL_TIMEOUT_MS) stall.abort()
    })
  }, WATCH_MS)
  const entry = fileURLToPath(new URL('./temporal-download-main.ts', import.meta.url))
  const failure = await runTool({
    command: process.execPath,
    args: [entry, folder, version],
    cwd: folder,
    env,
    timeoutMs: DOWNLOAD_TIMEOUT_MS,
    signal: stall.signal,
  }).then(
    () => undefined,
    (error: unknown) => error,
  )
  clearInterval(watch)
  // The file counts, not the exit: the SDK renames it when it is complete, and only then tries to start it.
  const [program] = (await readdir(folder)).filter((name) => !name.endsWith('.downloading'))
  if (program === undefined) throw new Error('the SDK could not fetch it', { cause: failure })
  await rename(join(folder, program), join(request.folder, TEMPORAL_COMMAND.program))
}

async function folderSize(folder: string): Promise<number> {
  const names = await readdir(folder).catch(() => [])
  const sizes = names.map((name) =>
    stat(join(folder, name)).then(
      (found) => found.size,
      () => 0, // renamed meanwhile
    ),
  )
  return (await Promise.all(sizes)).reduce((sum, each) => sum + each, 0)
}
