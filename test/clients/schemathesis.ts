import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { useScratchFolder } from '../support/scratch.ts'

const run = promisify(execFile)
export const SCHEMATHESIS = fileURLToPath(new URL('.venv/bin/schemathesis', import.meta.url))
const CHECKS = 'not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance'
const MOST_OUTPUT_BYTES = 64 * 1024 * 1024
/** Of what it found, as much as a person reads. */
const MOST_CHARACTERS = 6_000

/** Has Schemathesis ask a server whatever its document allows, and forbids. @throws with what it found */
export async function schemathesis(server: {
  readonly url: string
  readonly key: string
  readonly document: object
  /** Which paths, as a regular expression. */
  readonly paths: string
  readonly timeoutMs: number
}): Promise<void> {
  const cwd = await useScratchFolder()
  const file = join(cwd, 'openapi.json')
  await writeFile(file, JSON.stringify(server.document))
  const args = [
    'run',
    file,
    `--url=${server.url}`,
    `--header=Authorization: Bearer ${server.key}`,
    `--include-path-regex=${server.paths}`,
    `--checks=${CHECKS}`,
    '--phases=examples,coverage,fuzzing',
    '--max-examples=5',
    '--seed=1',
    '--workers=1',
    '--no-color',
  ]
  const env = { PATH: process.env['PATH'] ?? '' }
  await run(SCHEMATHESIS, args, { cwd, env, timeout: server.timeoutMs, maxBuffer: MOST_OUTPUT_BYTES }).catch(
    (error: unknown) => {
      const output = error instanceof Error && 'stdout' in error ? String(error.stdout) : String(error)
      const from = Math.max(0, output.search(/^=+ (FAILURES|ERRORS) =+$/m))
      throw new Error(output.slice(from, from + MOST_CHARACTERS))
    },
  )
}
