import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { useScratchFolder } from './scratch.ts'

/** A file with keys for secrets, the first of which encrypts. It goes with the test. */
export async function useSecretsKeyFile(...lines: readonly string[]): Promise<string> {
  const file = join(await useScratchFolder(), 'secrets-keys')
  await writeFile(file, `${lines.join('\n')}\n`, { mode: 0o600 })
  return file
}
