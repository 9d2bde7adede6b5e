import { Problem } from '#contracts/codes.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import { json } from './json.ts'
import type { Database } from './schema.ts'

/** A request that must have its effect once, however often it is sent. */
export interface OnceRequest {
  /** A project, or an organisation for what its operators ask. */
  readonly scope: string
  readonly key: string
  /** SHA-256 of what was asked. */
  readonly digest: Buffer
}

export interface Effect<Body> {
  readonly status: number
  readonly body: Body
  /** What a repeated request is answered, when it is not `body`: a secret is not stored. */
  readonly kept?: Body
}

export interface OnceAnswer {
  readonly status: number
  readonly body: unknown
  readonly replayed: boolean
}

/**
 * Runs `effect` and stores its answer in the same transaction. The same request again gets that answer; requests at the
 * same time take turns. What throws has no effect and leaves no answer behind, so it may be sent again.
 */
export async function answerOnce<Body>(
  db: Kysely<Database>,
  request: OnceRequest | undefined,
  effect: (trx: Transaction<Database>) => Promise<Effect<Body>>,
): Promise<OnceAnswer> {
  return db.transaction().execute(async (trx) => {
    if (!request) return { ...(await effect(trx)), replayed: false }
    const { scope, key } = request
    await sql`select pg_advisory_xact_lock(hashtextextended(${`${scope} ${key}`}, 0))`.execute(trx)
    const known = await findAnswer(trx, request)
    if (known) return { ...known, replayed: true }
    const { status, body, kept } = await effect(trx)
    await trx
      .insertInto('idempotency')
      .values({ scope, key, digest: request.digest, status, body: json(kept ?? body) })
      .execute()
    return { status, body, replayed: false }
  })
}

/** The answer that this request was given before. @throws Problem `idempotency_mismatch` */
export async function findAnswer(
  db: Kysely<Database>,
  request: OnceRequest,
): Promise<{ readonly status: number; readonly body: unknown } | undefined> {
  const row = await db
    .selectFrom('idempotency')
    .select(['digest', 'status', 'body'])
    .where('scope', '=', request.scope)
    .where('key', '=', request.key)
    .executeTakeFirst()
  if (!row) return undefined
  if (Buffer.compare(row.digest, request.digest) !== 0) {
    throw new Problem('idempotency_mismatch', 'This Idempotency-Key came with another method, path or body before.', {
      remedy: 'Use a new key for a new request; to repeat the first one, send it exactly as it was.',
    })
  }
  return { status: row.status, body: row.body }
}

/** What a key was claimed for: by this request first, by the same one before, or by another. */
export type Claim = 'first' | 'repeated' | 'other'

/** Claims a key for a request whose answer is kept elsewhere. */
export async function claimKey(db: Kysely<Database>, { scope, key, digest }: OnceRequest): Promise<Claim> {
  const claimed = await db
    .insertInto('idempotency')
    .values({ scope, key, digest, status: 200, body: json({}) })
    .onConflict((conflict) => conflict.doNothing())
    .returning('key')
    .executeTakeFirst()
  if (claimed) return 'first'
  const { digest: known } = await db
    .selectFrom('idempotency')
    .select('digest')
    .where('scope', '=', scope)
    .where('key', '=', key)
    .executeTakeFirstOrThrow()
  return Buffer.compare(known, digest) === 0 ? 'repeated' : 'other'
}
