import { createHash, createPrivateKey, createPublicKey, sign, verify, type KeyObject } from 'node:crypto'

/** Signs heads. The key is kept outside the database: whoever can write every table still cannot sign. */
export interface SealSigner {
  readonly keyId: string
  sign(hash: Buffer): Buffer
  /** Whether it, or an older key that was kept beside it, has signed this. */
  knows(block: { readonly hash: Buffer; readonly keyId: string | null; readonly signature: Buffer | null }): boolean
}

export interface SealPublicKey {
  readonly keyId: string
  verifies(hash: Buffer, signature: Buffer): boolean
}

const KEY_ID_LENGTH = 16
const PRIVATE_BLOCK = /-----BEGIN PRIVATE KEY-----[\s\S]+?-----END PRIVATE KEY-----/
const PEM_BLOCK = /-----BEGIN [A-Z ]+-----[\s\S]+?-----END [A-Z ]+-----/g

/** Signs with the private key, and knows every other key of the text. @throws when it has no Ed25519 private key in PEM */
export function sealSigner(pem: string): SealSigner {
  const key = ed25519(createPrivateKey(pem.match(PRIVATE_BLOCK)?.[0] ?? pem))
  const known = sealPublicKeys(pem)
  return {
    keyId: keyIdOf(createPublicKey(key)),
    sign: (hash) => sign(null, messageOf(hash), key),
    knows: ({ hash, keyId, signature }) =>
      signature !== null && known.some((each) => each.keyId === keyId && each.verifies(hash, signature)),
  }
}

/** Every key of a PEM text, so that blocks that an older key signed can still be checked; of private ones their public half. */
export function sealPublicKeys(pem: string): readonly SealPublicKey[] {
  const blocks = pem.match(PEM_BLOCK) ?? []
  if (blocks.length === 0) throw new Error('there is no key in PEM in it')
  return blocks.map((block) => {
    const key = ed25519(createPublicKey(block))
    return { keyId: keyIdOf(key), verifies: (hash, signature) => verify(null, messageOf(hash), key, signature) }
  })
}

/** What is signed says what it is, so that a signature means nothing elsewhere. */
function messageOf(hash: Buffer): Buffer {
  return Buffer.from(`purser seal ${hash.toString('hex')}`)
}

function ed25519(key: KeyObject): KeyObject {
  if (key.asymmetricKeyType !== 'ed25519') throw new Error(`the key is ${key.asymmetricKeyType}, not ed25519`)
  return key
}

function keyIdOf(publicKey: KeyObject): string {
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  return createHash('sha256').update(spki).digest('hex').slice(0, KEY_ID_LENGTH)
}
