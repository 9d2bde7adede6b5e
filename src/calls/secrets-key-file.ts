import { secretBox, type SecretBox, type SecretKeys } from '#db/secret-box.ts'
import { open } from 'node:fs/promises'

/** How often the file is looked at. What is new is taken when a second look finds the same: it may just be written. */
const LOOK_MS = 1_000
/** Writable by its group, readable or writable by everybody. */
const TOO_OPEN = 0o026

/** The keys in PURSER_SECRETS_KEY_FILE, and what becomes of them while the process runs. */
export interface SecretsKeyFile extends SecretKeys {
  /**
   * Takes what is changed in the file, until stopped. While it cannot be read, the keys stay as they were.
   *
   * @param complain told once of each thing that is wrong; nothing of a key is in it
   */
  watch(complain: (sentence: string) => void): { stop(): Promise<void> }
}

/**
 * Reads the keys of this process. Undefined without a file.
 *
 * @throws when it cannot be read or holds no key; nothing of it is told
 */
export async function openSecretsKeyFile(path: string | undefined): Promise<SecretsKeyFile | undefined> {
  if (path === undefined) return undefined
  try {
    const { text } = await read(path)
    return new KeyFile(path, text)
  } catch (cause) {
    throw new Error(faultOf(path, cause), { cause })
  }
}

class KeyFile implements SecretsKeyFile {
  readonly #path: string
  #box: SecretBox
  /** What was taken, and what was seen last. */
  #taken: string
  #seen: string

  constructor(path: string, text: string) {
    this.#path = path
    this.#box = secretBox(text)
    this.#taken = text
    this.#seen = text
  }

  now(): SecretBox {
    return this.#box
  }

  watch(complain: (sentence: string) => void): { stop(): Promise<void> } {
    let said: string | undefined
    let looking: Promise<void> | undefined
    const look = (): void => {
      looking ??= this.#look().then((fault) => {
        looking = undefined
        if (fault !== undefined && fault !== said) complain(fault)
        said = fault
      })
    }
    look()
    const timer = setInterval(look, LOOK_MS)
    timer.unref()
    return {
      async stop() {
        clearInterval(timer)
        await looking
      },
    }
  }

  /** What is wrong, if something is. */
  async #look(): Promise<string | undefined> {
    try {
      const { text, mode } = await read(this.#path)
      const isSettled = text === this.#seen
      this.#seen = text
      if (isSettled && text !== this.#taken) {
        this.#box = secretBox(text)
        this.#taken = text
      }
      return (mode & TOO_OPEN) === 0 ? undefined : `${named(this.#path)} others may read or write it: chmod 600 it.`
    } catch (error) {
      return `${faultOf(this.#path, error)}. The keys that were read before stay in use.`
    }
  }
}

async function read(path: string): Promise<{ readonly text: string; readonly mode: number }> {
  const file = await open(path)
  try {
    const { mode } = await file.stat()
    return { text: await file.readFile('utf8'), mode }
  } finally {
    await file.close()
  }
}

function faultOf(path: string, cause: unknown): string {
  const reason = cause instanceof Error ? cause.message : String(cause)
  return `${named(path)} it has no keys for secrets: ${reason}`
}

function named(path: string): string {
  return `PURSER_SECRETS_KEY_FILE names ${path}, and`
}
