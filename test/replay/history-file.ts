import { readFile, writeFile } from 'node:fs/promises'
import { gunzipSync, gzipSync } from 'node:zlib'

/** They say on which machine and from which folder a history was recorded, and replay needs none of it. */
const PERSONAL: ReadonlySet<string> = new Set(['identity', 'stackTrace'])
const BYTES = '$bytes'

/**
 * Writes a workflow history as compressed JSON: bytes as base64, 64-bit numbers as their halves. Not the SDK's own conversion: it
 * needs one copy of protobufjs, and two are installed (grpc wants an older one).
 */
export async function writeHistory(path: string, history: object): Promise<void> {
  // A clone has no methods: the messages' own would turn enums and numbers into text that does not replay.
  const text = JSON.stringify(structuredClone(history), replace)
  await writeFile(path, gzipSync(text))
}

export async function readHistory(path: string): Promise<unknown> {
  const history: unknown = JSON.parse(gunzipSync(await readFile(path)).toString(), revive)
  return history
}

function replace(key: string, value: unknown): unknown {
  if (PERSONAL.has(key)) return undefined
  return value instanceof Uint8Array ? { [BYTES]: Buffer.from(value).toString('base64') } : value
}

function revive(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || !(BYTES in value)) return value
  return Buffer.from(String(value[BYTES]), 'base64')
}
