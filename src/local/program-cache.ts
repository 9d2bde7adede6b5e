import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { chmod, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { makeFolder } from './cache.ts'
import { withFileLock } from './file-lock.ts'
import { type Say, withProgress } from './progress.ts'
import { removeAbandoned, temporaryPath } from './temporary-path.ts'

export interface InstallRequest {
  /** The folder to put the programs into. It is private to this installation and may be used for anything else. */
  readonly folder: string
  readonly version: string
  readonly env: NodeJS.ProcessEnv
  readonly say: Say
}

/** Makes the programs, or throws with the reason why this way is closed on this machine. */
export interface Installer {
  readonly name: string
  install(request: InstallRequest): Promise<void>
}

export interface ProgramSet {
  /** Where the programs come to lie: a folder of its own inside the cache. */
  readonly folder: string
  /** The names of the files that are kept. */
  readonly programs: readonly string[]
  readonly version: string
  readonly env: NodeJS.ProcessEnv
  /** Ways to get them, in order. */
  readonly installers: readonly Installer[]
  /** What is awaited, for the line that shows progress. */
  readonly label: string
  /** What to do when every way is closed: a sentence without its full stop. */
  readonly remedy: string
  /** @throws when a program does not do what it is for */
  readonly requireWorking: (program: string) => Promise<void>
}

const STAMP = 'stamp.json'

/**
 * Makes sure that programs which are expensive to make are in the cache, whole and working. Of several processes one makes
 * them, out of sight; a rename brings them into place together.
 *
 * @throws one sentence about what to install when every way is closed
 */
export async function ensurePrograms(set: ProgramSet): Promise<void> {
  if (await isIntact(set)) return
  await withProgress(set.label, async (say) => {
    await makeFolder(dirname(set.folder))
    const onWait = (holder: number) => say(`waiting for process ${holder}, which is at it`)
    await withFileLock(
      `${set.folder}.lock`,
      async () => {
        if (!(await isIntact(set))) await installPrograms(set, say)
      },
      { onWait },
    )
  })
}

async function installPrograms(set: ProgramSet, say: Say): Promise<void> {
  const { folder, version, env, installers } = set
  await removeAbandoned(folder)
  const reasons: string[] = []
  for (const installer of installers) {
    const temporary = temporaryPath(folder)
    const work = join(temporary, 'work')
    await mkdir(work, { recursive: true })
    try {
      await installer.install({ folder: work, version, env, say })
      for (const program of set.programs) await set.requireWorking(join(work, program))
      await replaceFolder(set, temporary)
      return
    } catch (error) {
      reasons.push(`${installer.name}: ${error instanceof Error ? error.message : String(error)}`)
    } finally {
      await rm(temporary, { recursive: true, force: true })
    }
  }
  throw new Error(`${set.remedy} (${reasons.join('; ')}).`)
}

/** Puts made programs with their stamp in the place of what the cache had, by one rename. */
async function replaceFolder({ folder, programs }: ProgramSet, temporary: string): Promise<void> {
  for (const program of programs) {
    await rename(join(temporary, 'work', program), join(temporary, program))
    await chmod(join(temporary, program), 0o755)
  }
  await rm(join(temporary, 'work'), { recursive: true, force: true })
  await chmod(temporary, 0o755)
  await writeFile(join(temporary, STAMP), await describeFiles(temporary, programs))
  await rm(folder, { recursive: true, force: true })
  await rename(temporary, folder)
}

async function isIntact({ folder, programs, requireWorking }: ProgramSet): Promise<boolean> {
  try {
    if ((await readFile(join(folder, STAMP), 'utf8')) !== (await describeFiles(folder, programs))) return false
    for (const program of programs) await requireWorking(join(folder, program))
    return true
  } catch {
    return false // never made, or damaged: made again
  }
}

async function describeFiles(folder: string, programs: readonly string[]): Promise<string> {
  const described = await Promise.all(programs.map((program) => describeFile(join(folder, program))))
  return described.map((each) => JSON.stringify(each)).join('\n')
}

async function describeFile(path: string): Promise<{ readonly size: number; readonly sha256: string }> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return { size: (await stat(path)).size, sha256: hash.digest('hex') }
}
