import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { makeSecretsKey } from '#db/secret-box.ts'
import { withFileLock } from './file-lock.ts'
import { writePrivateFile } from './stack-state.ts'

const KEY_BYTES = 32

/** Keeps a data folder for this process until the returned function is called. @throws when another stack has it */
export async function lockDataFolder(dataDir: string): Promise<() => Promise<void>> {
  const taken = Promise.withResolvers<void>()
  const released = Promise.withResolvers<void>()
  const onWait = (holder: number): never => {
    throw new Error(
      `A stack is running on ${dataDir} already (process ${holder}): stop it, or set PURSER_DATA_DIR to another folder.`,
    )
  }
  const task = async (): Promise<void> => {
    taken.resolve()
    await released.promise
  }
  const locked = withFileLock(join(dataDir, 'stack.lock'), task, { onWait })
  await Promise.race([taken.promise, locked])
  return async () => {
    released.resolve()
    await locked
  }
}

/** The operator key of this data folder's stack: made at its first start, the same at every later one. */
export async function readOrMakeOperatorKey(
  dataDir: string,
): Promise<{ readonly key: string; readonly isNew: boolean }> {
  const path = join(dataDir, 'operator-key')
  const known = await readFile(path, 'utf8').catch(() => undefined)
  if (known !== undefined) return { key: known.trim(), isNew: false }
  const key = `purser_op_${randomBytes(KEY_BYTES).toString('base64url')}`
  await writePrivateFile(path, key)
  return { key, isNew: true }
}

/** The files by which this data folder's ledger is proved: beside its database, not in it. */
export function sealFilesOf(dataDir: string): { readonly keyFile: string; readonly anchorFile: string } {
  return { keyFile: join(dataDir, 'seal-key.pem'), anchorFile: join(dataDir, 'seal-anchor.jsonl') }
}

/** Makes the key that signs the heads of this data folder's journal, unless it is there. */
export async function ensureSealKey(dataDir: string): Promise<void> {
  const { keyFile } = sealFilesOf(dataDir)
  const known = await readFile(keyFile, 'utf8').catch(() => undefined)
  if (known !== undefined) return
  const { privateKey } = generateKeyPairSync('ed25519')
  await writePrivateFile(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }).toString().trimEnd())
}

/** Makes the key that secrets in this data folder's database are encrypted with, unless it is there; returns its file. */
export async function ensureSecretsKey(dataDir: string): Promise<string> {
  const path = join(dataDir, 'secrets-keys')
  const known = await readFile(path, 'utf8').catch(() => undefined)
  if (known === undefined) await writePrivateFile(path, makeSecretsKey())
  return path
}
