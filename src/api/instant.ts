import { Problem } from '#contracts/codes.ts'
import { readInstant, type Instant } from '#db/instant.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely } from 'kysely'

/** The instant a request asks about, or now. @throws Problem `invalid_instant` for one that has not come yet */
export async function instantFor(db: Kysely<Database>, asked: string | undefined): Promise<Instant> {
  const instant = await readInstant(db, asked)
  if (!instant) throw badInstant('query.asOf', `${asked} has not come yet`)
  return instant
}

export function badInstant(path: string, message: string): Problem {
  return new Problem('invalid_instant', `${path}: ${message}`, {
    remedy: 'Ask for a moment that has passed by the clock of the database, or leave it out.',
    extra: { errors: [{ path, message }] },
  })
}
