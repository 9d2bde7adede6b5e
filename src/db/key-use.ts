import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'

const MINUTE_MS = 60_000
/** Uses of so long are written together. */
const FLUSH_MS = 2_000

/** Remembers when keys were last used: one write for all keys of some seconds, and none for a key twice in a minute. */
export interface KeyUses {
  note(keyId: string): void
  stop(): Promise<void>
}

export function keepKeyUses(db: Kysely<Database>, nowMs: () => number): KeyUses {
  let minute = 0
  const noted = new Set<string>()
  const unwritten = new Set<string>()
  let timer: NodeJS.Timeout | undefined
  let writing = Promise.resolve()

  function flush(): void {
    timer = undefined
    const keyIds = [...unwritten]
    unwritten.clear()
    // What is lost with a database that is away is made up for a minute later.
    writing = writing.then(() => writeUses(db, keyIds)).catch(() => {})
  }

  return {
    note(keyId) {
      const now = Math.floor(nowMs() / MINUTE_MS)
      if (now !== minute) noted.clear()
      minute = now
      if (noted.has(keyId)) return
      noted.add(keyId)
      unwritten.add(keyId)
      timer ??= setTimeout(flush, FLUSH_MS).unref()
    },
    async stop() {
      clearTimeout(timer)
      if (unwritten.size > 0) flush()
      await writing
    },
  }
}

/** What others are just writing, they write: nobody waits for anybody. */
async function writeUses(db: Kysely<Database>, keyIds: readonly string[]): Promise<void> {
  await sql`
    update api_key k set last_used_at = date_trunc('minute', clock_timestamp())
    from (
      select id from api_key where id = any(${[...keyIds]}::uuid[])
        and coalesce(last_used_at < date_trunc('minute', clock_timestamp()), true)
      for no key update skip locked
    ) used where k.id = used.id`.execute(db)
}
