import { callerOf, type KeyHolder } from '#db/api-key.ts'
import { sha256 } from '#db/ids.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'
import { LRUCache } from 'lru-cache'

/** A key that is revoked opens nothing after this, in any process: until then its envelope's gate refuses its calls. */
const FRESH_MS = 900
const MOST_KEYS = 20_000

/** Who asks, kept for less than a second so that not every request reads it. */
export interface KeyDesk {
  callerOf(secret: string): Promise<KeyHolder | undefined>
}

interface Kept {
  readonly caller: Promise<KeyHolder | undefined>
  readonly atMs: number
}

/** Secrets are kept as their digests only. A key that is not known is not asked for again either. */
export function createKeyDesk(db: Kysely<Database>, monotonicMs: () => number): KeyDesk {
  const kept = new LRUCache<string, Kept>({ max: MOST_KEYS })
  return {
    callerOf(secret) {
      const digest = sha256(secret).toString('base64')
      const known = kept.get(digest)
      if (known && monotonicMs() - known.atMs < FRESH_MS) return known.caller
      const caller = callerOf(db, secret)
      kept.set(digest, { caller, atMs: monotonicMs() })
      caller.catch(() => void kept.delete(digest))
      return caller
    },
  }
}
