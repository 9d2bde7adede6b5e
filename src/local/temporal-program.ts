import { execFile } from 'node:child_process'
import { access, constants } from 'node:fs/promises'
import { delimiter, isAbsolute, join } from 'node:path'
import { promisify } from 'node:util'
import { ensurePrograms, type Installer } from './program-cache.ts'
import { buildPrograms, TEMPORAL_COMMAND } from './temporal-build.ts'
import { downloadTemporal } from './temporal-download.ts'

/** The release of the Temporal command line that is installed; newer tags do not build as a Go module of their own. */
export const TEMPORAL_VERSION = 'v1.5.1'

export interface FindOptions {
  readonly env: NodeJS.ProcessEnv
  readonly cacheDir: string
  /** Ways to get the program when neither PATH nor the cache has it, in order. */
  readonly installers?: readonly Installer[]
}

const INSTALLERS: readonly Installer[] = [
  { name: 'download', install: downloadTemporal },
  { name: 'Go build', install: (request) => buildPrograms(request, [TEMPORAL_COMMAND]) },
]

const VERSION_TIMEOUT_MS = 30_000
const PROGRAM = TEMPORAL_COMMAND.program

/**
 * The path of a working `temporal` program: the one on PATH, else the one in the cache, else a new one in the cache.
 * @throws one sentence about what to install when every way is closed.
 */
export async function findTemporalProgram(options: FindOptions): Promise<string> {
  const { env, cacheDir, installers = INSTALLERS } = options
  const onPath = await findOnPath(env)
  if (onPath !== undefined) return onPath
  const folder = join(cacheDir, 'temporal', `${TEMPORAL_VERSION}-${process.platform}-${process.arch}`)
  await ensurePrograms({
    folder,
    programs: [PROGRAM],
    version: TEMPORAL_VERSION,
    env,
    installers,
    label: 'Getting the Temporal server, once for this machine (up to 5 minutes)',
    remedy:
      'No Temporal server could be had: install Go 1.25 or newer, or the Temporal command line (`temporal` on PATH), ' +
      'or set TEMPORAL_ADDRESS to a running server',
    requireWorking,
  })
  return join(folder, PROGRAM)
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
