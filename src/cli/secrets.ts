import { createHash, randomBytes } from 'node:crypto'
import { readArguments, UsageError } from './arguments.ts'
import { connectToApi } from './connection.ts'
import { printTable } from './print-table.ts'
import type { Outputs } from './screen.ts'

const USAGE = `Usage: purser secrets [--json]
       purser secrets key

Shows how many secrets (keys of providers, secrets of webhooks) each key of PURSER_SECRETS_KEY_FILE encrypts; needs an
operator key. With key, prints a line with a new key for that file, and asks nobody: purser secrets key >> FILE`

const KEY_BYTES = 32
const ID_LENGTH = 8

export async function secrets(args: readonly string[], { out }: Outputs): Promise<number> {
  const { values, positionals } = readArguments(args, {
    options: { json: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
    usage: USAGE,
    positionals: 1,
  })
  if (values.help) {
    out.line(USAGE)
    return 0
  }
  const [command] = positionals
  if (command === 'key') {
    out.line(newKey())
    return 0
  }
  if (command !== undefined) throw new UsageError(`"${command}" is not expected here.`, USAGE)
  const api = await connectToApi(process.env)
  const found = await api.get('/secrets')
  if (values.json) {
    out.line(JSON.stringify(found, undefined, 2))
    return 0
  }
  const { encryptsWith } = found
  out.line(encryptsWith === null ? 'There is no key: no secret can be stored.' : `New secrets: key ${encryptsWith}`)
  printTable(
    out,
    [{ title: 'key' }, { title: 'secrets', align: 'right' }],
    found.secrets.map(({ encryptedBy, count }) => [encryptedBy ?? 'in clear', String(count)]),
  )
  return 0
}

/** `id:key`, as `secretBox` in src/db reads it: one id is never two keys, for it is taken from the key. */
function newKey(): string {
  const key = randomBytes(KEY_BYTES)
  return `${createHash('sha256').update(key).digest('hex').slice(0, ID_LENGTH)}:${key.toString('base64')}`
}
