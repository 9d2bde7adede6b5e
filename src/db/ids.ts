import { hash, randomFillSync } from 'node:crypto'

/** Random bytes are drawn for many ids at once: drawing costs more than an id does. */
const drawn = Buffer.alloc(4_096)
let drawnUpTo = drawn.length

function randomBytes(count: number): Buffer {
  if (drawnUpTo + count > drawn.length) {
    randomFillSync(drawn)
    drawnUpTo = 0
  }
  drawnUpTo += count
  return Buffer.from(drawn.subarray(drawnUpTo - count, drawnUpTo))
}

/** A new UUIDv7 (RFC 9562): time first, so that index pages stay hot. */
export function newId(nowMs: number): string {
  const bytes = randomBytes(16)
  bytes.writeUIntBE(nowMs, 0, 6)
  return format(bytes)
}

/** Of each hexadecimal digit the two lowest bits, behind those that mark the variant of RFC 9562. */
const VARIANTS = '89ab89ab89ab89ab'

/**
 * The id of something that belongs to `anchor` (a run): UUIDv8 of the anchor's 48 time bits, then SHA-256 of anchor and
 * parts. The same parts give the same id, so a repeated write meets its own row.
 */
export function deriveId(anchor: string, ...parts: readonly string[]): string {
  let text = `${anchor.length}:${anchor}`
  for (const part of parts) text += `${part.length}:${part}`
  const digest = hash('sha256', text)
  const variant = VARIANTS.charAt(Number.parseInt(digest.charAt(4), 16))
  return `${anchor.slice(0, 13).toLowerCase()}-8${digest.slice(1, 4)}-${variant}${digest.slice(5, 8)}-${digest.slice(8, 20)}`
}

export function sha256(text: string): Buffer {
  return hash('sha256', text, 'buffer')
}

function format(bytes: Buffer): string {
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x70
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80
  const hex = bytes.toString('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}
