import { DOCUMENT_PATH } from '../../src/api/documentation.ts'
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { z } from 'zod'
import type { TestApi } from '../support/api.ts'
import { useScratchFolder } from '../support/scratch.ts'

const run = promisify(execFile)
export const SCHEMATHESIS = fileURLToPath(new URL('.venv/bin/schemathesis', import.meta.url))
const CHECKS = 'not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance'
const MOST_OUTPUT_BYTES = 64 * 1024 * 1024
/** Of what it found, as much as a person reads. */
const MOST_CHARACTERS = 6_000

const documentSchema = z.looseObject({
  paths: z.record(z.string(), z.record(z.string(), z.unknown())),
  components: z.looseObject({ schemas: z.record(z.string(), z.record(z.string(), z.unknown())) }),
})

export type OpenApiDocument = z.infer<typeof documentSchema>

/** One method of a path of the document, both as they stand there. */
export interface Operation {
  readonly path: string
  readonly method: string
}

/** The document that a server serves. */
export async function documentOf({ app }: TestApi): Promise<OpenApiDocument> {
  return documentSchema.parse((await app.inject({ method: 'GET', url: DOCUMENT_PATH })).json())
}

/** Those whose path begins so. */
export function operationsOf({ paths }: OpenApiDocument, prefix: string): readonly Operation[] {
  return Object.entries(paths)
    .filter(([path]) => path.startsWith(prefix))
    .flatMap(([path, methods]) => Object.keys(methods).map((method) => ({ path, method })))
}

/** The document with no other operations than these. */
function only(document: OpenApiDocument, operations: readonly Operation[]): OpenApiDocument {
  const paths: OpenApiDocument['paths'] = {}
  for (const { path, method } of operations) {
    paths[path] = { ...paths[path], [method]: document.paths[path]?.[method] }
  }
  return { ...document, paths }
}

/** Has Schemathesis ask a server whatever its document allows, and forbids, of these operations. @throws with what it found */
export async function schemathesis(server: {
  readonly url: string
  readonly key: string
  readonly document: OpenApiDocument
  readonly operations: readonly Operation[]
  readonly timeoutMs: number
}): Promise<void> {
  const cwd = await useScratchFolder()
  const file = join(cwd, 'openapi.json')
  await writeFile(file, JSON.stringify(only(server.document, server.operations)))
  const args = [
    'run',
    file,
    `--url=${server.url}`,
    `--header=Authorization: Bearer ${server.key}`,
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
