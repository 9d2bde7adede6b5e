import { secretBox, type SecretBox } from '#db/secret-box.ts'
import { readFile } from 'node:fs/promises'

/**
 * The keys of this process, as they stand now: a changed file is read at the next start. Undefined without a file.
 *
 * @throws when it cannot be read or holds no key; nothing of it is told
 */
export async function readSecretBox(keyFile: string | undefined): Promise<SecretBox | undefined> {
  if (keyFile === undefined) return undefined
  try {
    return secretBox(await readFile(keyFile, 'utf8'))
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new Error(`PURSER_SECRETS_KEY_FILE names ${keyFile}, which has no keys for secrets: ${reason}`, { cause })
  }
}
