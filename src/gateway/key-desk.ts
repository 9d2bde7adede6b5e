import { sha256 } from '#db/ids.ts'
import { callerOf, type KeyLookUp } from '#db/key-holder.ts'
import type { KeyUses } from '#db/key-use.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'
import { LRUCache } from 'lru-cache'

/** A key that is revoked opens nothing after this, in any process: until then its envelope's gate refuses its calls. */
const FRESH_MS = 900
const MOST_KEYS = 20_000

/** Who asks, kept for less than a second so that not every request reads it. */
export interface KeyDesk {
  callerOf(secret: string): Promise<KeyLookUp>
}

interface KeyDeskParts {
  readonly db: Kysely<Database>
  readonly uses: KeyUses
  readonly monotonicMs: () => number
}

interface Kept {
  readonly found: Promise<KeyLookUp>
  readonly atMs: number
}

/** Secrets are kept as their digests only. A key that is not known is not asked for again either. */
export function createKeyDesk({ db, uses, monotonicMs }: KeyDeskParts): KeyDesk {
  const kept = new LRUCache<string, Kept>({ max: MOST_KEYS })

  function look(secret: string, digest: string): Promise<KeyLookUp> {
    const found = callerOf(db, secret)
    kept.set(digest, { found, atMs: monotonicMs() })
    found.catch(() => void kept.delete(digest))
    return found
  }

  return {
    async callerOf(secret) {
      const digest = sha256(secret).toString('base64')
      const known = kept.get(digest)
      const isFresh = known !== undefined && monotonicMs() - known.atMs < FRESH_MS
      const found = await (isFresh ? known.found : look(secret, digest))
      if (found.ok) uses.note(found.holder.keyId)
      return found
    },
  }
}
