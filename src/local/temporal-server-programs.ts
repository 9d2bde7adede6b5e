import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ensurePrograms } from './program-cache.ts'
import { buildPrograms, type GoProgram } from './temporal-build.ts'

/** The release of Temporal's own server, as it runs in production, which no package offers. */
const SERVER_VERSION = 'v1.32.0'
const SERVER: GoProgram = { program: 'temporal-server', package: 'go.temporal.io/server/cmd/server' }
const SQL_TOOL: GoProgram = { program: 'temporal-sql-tool', package: 'go.temporal.io/server/cmd/tools/sql' }
const VERSION_TIMEOUT_MS = 30_000

/** The paths of the server and of the tool that makes and updates its tables. */
export interface TemporalServerPrograms {
  readonly server: string
  readonly sqlTool: string
}

/** Finds the programs in the cache, or builds them there with Go. @throws one sentence about what to install */
export async function findTemporalServerPrograms(options: {
  readonly env: NodeJS.ProcessEnv
  readonly cacheDir: string
}): Promise<TemporalServerPrograms> {
  const { env, cacheDir } = options
  const folder = join(cacheDir, 'temporal-server', `${SERVER_VERSION}-${process.platform}-${process.arch}`)
  await ensurePrograms({
    folder,
    programs: [SERVER.program, SQL_TOOL.program],
    version: SERVER_VERSION,
    env,
    installers: [{ name: 'Go build', install: (request) => buildPrograms(request, [SERVER, SQL_TOOL]) }],
    label: "Building Temporal's server, once for this machine (up to 10 minutes)",
    remedy: "Temporal's server could not be built: install Go 1.25 or newer, or use the dev server",
    requireWorking,
  })
  return { server: join(folder, SERVER.program), sqlTool: join(folder, SQL_TOOL.program) }
}

async function requireWorking(program: string): Promise<void> {
  const { stdout } = await promisify(execFile)(program, ['--version'], { timeout: VERSION_TIMEOUT_MS, cwd: '/' })
  if (!/version \d/.test(stdout)) throw new Error(`${program} does not say its version`)
}
