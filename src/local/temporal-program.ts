import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { access, chmod, constants, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { delimiter, isAbsolute, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import { makeFolder } from './cache.ts'
import { withFileLock } from './file-lock.ts'
import { type Say, withProgress } from './progress.ts'
import { buildTemporal } from './temporal-build.ts'
import { downloadTemporal } from './temporal-download.ts'
import { removeAbandoned, temporaryPath } from './temporary-path.ts'

/** The release of the Temporal command line that is installed; newer tags do not build as a Go module of their own. */
export const TEMPORAL_VERSION = 'v1.5.1'

export interface InstallRequest {
  /** The file to make. Its folder is private to this installation and may be used for anything else. */
  readonly target: string
  readonly version: string
  readonly env: NodeJS.ProcessEnv
  readonly say: Say
}

/** Makes the program, or throws with the reason why this way is closed on this machine. */
export interface Installer {
  readonly name: string
  install(request: InstallRequest): Promise<void>
}

export interface FindOptions {
  readonly env: NodeJS.ProcessEnv
  readonly cacheDir: string
  /** Ways to get the program when neither PATH nor the cache has it, in order. */
  readonly installers?: readonly Installer[]
}

const INSTALLERS: readonly Installer[] = [
  { name: 'download', install: downloadTemporal },
  { name: 'Go build', install: buildTemporal },
]

const VERSION_TIMEOUT_MS = 30_000
const PROGRAM = 'temporal'
const STAMP = 'stamp.json'

/**
 * The path of a working `temporal` program: the one on PATH, else the one in the cache, else a new one in the cache.
 * @throws one sentence about what to install when every way is closed.
 */
export async function findTemporalProgram(options: FindOptions): Promise<string> {
  const { env, cacheDir, installers = INSTALLERS } = options
  const onPath = await findOnPath(env)
  if (onPath !== undefined) return onPath
  const folder = join(cacheDir, 'temporal', `${TEMPORAL_VERSION}-${process.platform}-${process.arch}`)
  if (!(await isIntact(folder))) {
    await withProgress('Getting the Temporal server, once for this machine (up to 5 minutes)', async (say) => {
      await makeFolder(join(cacheDir, 'temporal'))
      const onWait = (holder: number) => say(`waiting for process ${holder}, which is at it`)
      await withFileLock(
        `${folder}.lock`,
        async () => {
          if (!(await isIntact(folder))) await installProgram({ folder, env, installers, say })
        },
        { onWait },
      )
    })
  }
  return join(folder, PROGRAM)
}

interface InstallOptions {
  readonly folder: string
  readonly env: NodeJS.ProcessEnv
  readonly installers: readonly Installer[]
  readonly say: Say
}

async function installProgram(options: InstallOptions): Promise<void> {
  const { folder, env, installers, say } = options
  await removeAbandoned(folder)
  const reasons: string[] = []
  for (const installer of installers) {
    const temporary = temporaryPath(folder)
    const made = join(temporary, 'work', PROGRAM)
    await mkdir(join(temporary, 'work'), { recursive: true })
    try {
      await installer.install({ target: made, version: TEMPORAL_VERSION, env, say })
      await requireWorking(made)
      await replaceFolder({ made, temporary, folder })
      return
    } catch (error) {
      reasons.push(`${installer.name}: ${error instanceof Error ? error.message : String(error)}`)
    } finally {
      await rm(temporary, { recursive: true, force: true })
    }
  }
  throw new Error(
    'No Temporal server could be had: install Go 1.25 or newer, or the Temporal command line (`temporal` on PATH), ' +
      `or set TEMPORAL_ADDRESS to a running server (${reasons.join('; ')}).`,
  )
}

/** Puts a made program with its stamp in the place of what the cache had, by one rename. */
async function replaceFolder(paths: {
  readonly made: string
  readonly temporary: string
  readonly folder: string
}): Promise<void> {
  const { made, temporary, folder } = paths
  const program = join(temporary, PROGRAM)
  await rename(made, program)
  await rm(join(temporary, 'work'), { recursive: true, force: true })
  await chmod(program, 0o755)
  await chmod(temporary, 0o755)
  await writeFile(join(temporary, STAMP), JSON.stringify(await describeFile(program)))
  await rm(folder, { recursive: true, force: true })
  await rename(temporary, folder)
}

async function isIntact(folder: string): Promise<boolean> {
  try {
    const program = join(folder, PROGRAM)
    const stamp = await readFile(join(folder, STAMP), 'utf8')
    if (stamp !== JSON.stringify(await describeFile(program))) return false
    await requireWorking(program)
    return true
  } catch {
    return false // never made, or damaged: made again
  }
}

async function describeFile(path: string): Promise<{ readonly size: number; readonly sha256: string }> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return { size: (await stat(path)).size, sha256: hash.digest('hex') }
}

async function requireWorking(program: string): Promise<void> {
  const { stdout } = await promisify(execFile)(program, ['--version'], { timeout: VERSION_TIMEOUT_MS, cwd: '/' })
  if (!stdout.startsWith('temporal version')) throw new Error(`${program} is not the Temporal command line`)
}

async function findOnPath(env: NodeJS.ProcessEnv): Promise<string | undefined> {
  for (const folder of (env['PATH'] ?? '').split(delimiter)) {
    const program = join(folder, PROGRAM)
    if (!isAbsolute(folder)) continue
    try {
      await access(program, constants.X_OK)
      await requireWorking(program)
      return program
    } catch {
      continue // not there, or another program of that name
    }
  }
  return undefined
}
