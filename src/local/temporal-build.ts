import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { InstallRequest } from './program-cache.ts'
import { runTool } from './tool-run.ts'

/** Four minutes on two cores; the limit is for machines with one, and slow networks. */
const BUILD_TIMEOUT_MS = 25 * 60_000
/** A build takes all cores: whatever else runs on this machine goes first. */
const NICENESS = 10

/** A program and the package of Go's `main` that it is built from. */
export interface GoProgram {
  readonly program: string
  readonly package: string
}

/** The Temporal command line, which contains the dev server. */
export const TEMPORAL_COMMAND: GoProgram = { program: 'temporal', package: 'github.com/temporalio/cli/cmd/temporal' }

/** Builds programs of one Go module at a pinned version. */
export async function buildPrograms(request: InstallRequest, programs: readonly GoProgram[]): Promise<void> {
  const { folder, version, say } = request
  const module = join(folder, 'module')
  await mkdir(module)
  await writeFile(join(module, 'go.mod'), 'module purser.local/temporal\n\ngo 1.25\n')
  const env = {
    ...request.env,
    GOWORK: 'off',
    CGO_ENABLED: '0', // needs no C compiler, and the program then runs on any system
  }
  const go = (args: readonly string[], onLine: (line: string) => void) =>
    runTool({
      command: 'go',
      args,
      cwd: module,
      env,
      timeoutMs: BUILD_TIMEOUT_MS,
      onLine,
      niceness: NICENESS,
    }).catch(explainMissing)

  say('resolving its Go modules')
  const packages = programs.map((each) => `${each.package}@${version}`)
  await go(['get', '-tool', ...packages], (line) => say(line.replace(/^go: /, '')))
  let compiled = 0
  say('compiling')
  for (const { program, package: source } of programs) {
    await go(['build', '-v', '-trimpath', '-ldflags', '-s -w', '-o', join(folder, program), source], (line) => {
      if (line.startsWith('go: ')) return say(line.replace(/^go: /, ''))
      compiled += 1
      say(`compiling package ${compiled}: ${line}`)
    })
  }
}

function explainMissing(error: unknown): never {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') throw new Error('Go is not installed')
  throw error
}
