import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'

/** A secret as it stands in the database. */
export interface EncryptedSecret {
  readonly bytes: Buffer
  /** The id of the key. */
  readonly encryptedBy: string
}

/**
 * Where a secret stands: table, column and what the row is. It is bound to that: bytes that somebody copies into another
 * row, or beside another address, are not read there.
 */
export type SecretPlace = readonly string[]

/** The keys of a process, which change while it runs. Whoever looks at them first and uses them then asks once. */
export interface SecretKeys {
  now(): SecretBox
}

/** Encrypts what has to be stored and read again. Its keys are in a file outside the database, and stay as they are. */
export interface SecretBox extends SecretKeys {
  /** The id of the key that encrypts. */
  readonly keyId: string
  encrypt(place: SecretPlace, secret: Buffer): EncryptedSecret
  /** @throws SecretUnreadable when it is of another place or an unknown key, or was changed */
  decrypt(place: SecretPlace, secret: EncryptedSecret): Buffer
}

/** The message says what to do, and nothing of the secret. */
export class SecretUnreadable extends Error {
  override readonly name = 'SecretUnreadable'
}

const ALGORITHM = 'aes-256-gcm'
const KEY_BYTES = 32
/** 96 random bits each time: good for 2^32 secrets under one key (NIST SP 800-38D, 8.3). */
const NONCE_BYTES = 12
const TAG_BYTES = 16
const ID_LENGTH = 8
/** An id and 32 bytes in base64. */
const LINE = /^([\w.-]{1,40}):([A-Za-z0-9+/]{43}=)$/

/**
 * @param text one key a line, `id:base64` of 32 bytes: the first encrypts, all decrypt. Empty lines and those after a # are
 * left out.
 * @throws when a line is no key: which one, and nothing of what stands there
 */
export function secretBox(text: string): SecretBox {
  const keys = keysOf(text)
  const [first] = keys
  if (!first) throw new Error('there is no key in it')
  const [keyId, key] = first
  const box: SecretBox = {
    keyId,
    now: () => box,
    encrypt(place, secret) {
      const nonce = randomBytes(NONCE_BYTES)
      const cipher = createCipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES })
      cipher.setAAD(boundTo(keyId, place))
      const text = Buffer.concat([cipher.update(secret), cipher.final()])
      return { bytes: Buffer.concat([nonce, cipher.getAuthTag(), text]), encryptedBy: keyId }
    },
    decrypt(place, { bytes, encryptedBy }) {
      const known = keys.get(encryptedBy)
      if (!known) {
        throw new SecretUnreadable(`no key ${encryptedBy} is in PURSER_SECRETS_KEY_FILE: add its line below the others`)
      }
      return opened(known, bytes, boundTo(encryptedBy, place))
    },
  }
  return box
}

/** A line for the file, with a new key. Its id is taken from the key, so that one id is never two keys. */
export function makeSecretsKey(): string {
  const key = randomBytes(KEY_BYTES)
  return `${createHash('sha256').update(key).digest('hex').slice(0, ID_LENGTH)}:${key.toString('base64')}`
}

function keysOf(text: string): ReadonlyMap<string, Buffer> {
  const keys = new Map<string, Buffer>()
  for (const [index, written] of text.split('\n').entries()) {
    const line = written.trim()
    if (line === '' || line.startsWith('#')) continue
    const [, id, base64] = LINE.exec(line) ?? []
    if (id === undefined || base64 === undefined) {
      throw new Error(`line ${index + 1} is no key: write id:key as \`purser secrets key\` prints it`)
    }
    if (keys.has(id)) throw new Error(`line ${index + 1} has the id of a line above`)
    keys.set(id, Buffer.from(base64, 'base64'))
  }
  return keys
}

/** As JSON, so that parts that are cut differently are another place. */
function boundTo(keyId: string, place: SecretPlace): Buffer {
  return Buffer.from(JSON.stringify(['purser secret', keyId, ...place]))
}

function opened(key: Buffer, bytes: Buffer, place: Buffer): Buffer {
  try {
    const nonce = bytes.subarray(0, NONCE_BYTES)
    const decipher = createDecipheriv(ALGORITHM, key, nonce, { authTagLength: TAG_BYTES })
    decipher.setAAD(place)
    decipher.setAuthTag(bytes.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES))
    return Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES + TAG_BYTES)), decipher.final()])
  } catch (cause) {
    throw new SecretUnreadable(
      'a secret cannot be decrypted: it was changed, stands beside another row or address than it was stored for, or its key has the id of another one. Store it again',
      { cause },
    )
  }
}
