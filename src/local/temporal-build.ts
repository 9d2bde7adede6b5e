import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { InstallRequest } from './temporal-program.ts'
import { runTool } from './tool-run.ts'

/** Four minutes on two cores; the limit is for machines with one, and slow networks. */
const BUILD_TIMEOUT_MS = 25 * 60_000
const PACKAGE = 'github.com/temporalio/cli/cmd/temporal'

/** Builds the Temporal command line, which contains the dev server, from its Go module at a pinned version. */
export async function buildTemporal(request: InstallRequest): Promise<void> {
  const { target, version, say } = request
  const folder = join(dirname(target), 'module')
  await mkdir(folder)
  await writeFile(join(folder, 'go.mod'), 'module purser.local/temporal\n\ngo 1.25\n')
  const env = {
    ...request.env,
    GOWORK: 'off',
    CGO_ENABLED: '0', // needs no C compiler, and the program then runs on any system
  }
  const go = (args: readonly string[], onLine: (line: string) => void) =>
    runTool({ command: 'go', args, cwd: folder, env, timeoutMs: BUILD_TIMEOUT_MS, onLine }).catch(explainMissing)

  say('resolving its Go modules')
  await go(['get', '-tool', `${PACKAGE}@${version}`], (line) => say(line.replace(/^go: /, '')))
  let compiled = 0
  say('compiling')
  await go(['build', '-v', '-trimpath', '-ldflags', '-s -w', '-o', target, PACKAGE], (line) => {
    if (line.startsWith('go: ')) return say(line.replace(/^go: /, ''))
    compiled += 1
    say(`compiling package ${compiled}: ${line}`)
  })
}

function explainMissing(error: unknown): never {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') throw new Error('Go is not installed')
  throw error
}
