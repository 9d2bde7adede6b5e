import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { digestOfJson, digestOfText } from '#test/support/document-digest.ts'
import { managementDocument } from '#test/support/documented-api.ts'

// Writes the types of the client from the OpenAPI document of this checkout: `npm run generate:client`.
const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const GENERATOR = here('client/node_modules/.bin/openapi-typescript')
const TARGET = here('../src/client/schema.ts')

if (!existsSync(GENERATOR)) {
  console.error('The generator is not installed. Install it: npm ci --prefix tools/client')
  process.exit(1)
}
const document = await managementDocument()
const folder = await mkdtemp(join(tmpdir(), 'purser-client-'))
try {
  const [source, target] = [join(folder, 'openapi.json'), join(folder, 'schema.ts')]
  await writeFile(source, JSON.stringify(document))
  await promisify(execFile)(GENERATOR, [source, '--output', target, '--alphabetize'])
  const types = await readFile(target, 'utf8')
  const head = `// Of the document ${digestOfJson(document)}\n// types ${digestOfText(types)}, by npm run generate:client.\n`
  await writeFile(TARGET, head + types)
} finally {
  await rm(folder, { recursive: true })
}
