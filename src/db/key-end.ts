import { sql, type Kysely, type Transaction } from 'kysely'
import { createKey, lockKey, type ApiKey } from './api-key.ts'
import { writeAudit } from './audit.ts'
import { closeStanding } from './envelope.ts'
import type { Database } from './schema.ts'

type Trx = Transaction<Database>

/** Most keys of one turn of `expireKeys`. */
const TURN_LIMIT = 100

export type Revocation =
  | { readonly ok: true; readonly before: ApiKey; readonly after: ApiKey }
  | { readonly ok: false; readonly reason: 'unknown' | 'last_operator' }

/**
 * From its commit on the key opens nothing, and no call of its standing envelope begins: its money goes home. Revoking it
 * again changes nothing. The last operator's key is kept that makes changes and does not expire.
 */
export async function revokeKey(trx: Trx, organisationId: string, keyId: string): Promise<Revocation> {
  // Those who revoke operators' keys take turns, so that two do not revoke the last two.
  await sql`select pg_advisory_xact_lock(hashtextextended(${`operators ${organisationId}`}, 0))`.execute(trx)
  const before = await lockKey(trx, organisationId, keyId)
  if (!before) return { ok: false, reason: 'unknown' }
  if (before.projectId === null && before.revokedAt === null && !(await hasOtherOperator(trx, organisationId, keyId))) {
    return { ok: false, reason: 'last_operator' }
  }
  await end(trx, before)
  const after = await lockKey(trx, organisationId, keyId)
  return { ok: true, before, after: after ?? before }
}

async function hasOtherOperator(trx: Trx, organisationId: string, keyId: string): Promise<boolean> {
  const { rows } = await sql`
    select from api_key where organisation_id = ${organisationId} and project_id is null and id <> ${keyId}
      and revoked_at is null and expires_at is null and 'admin' = any(scopes) limit 1`.execute(trx)
  return rows.length > 0
}

async function end(trx: Trx, key: Pick<ApiKey, 'id' | 'projectId'>): Promise<void> {
  await trx
    .updateTable('api_key')
    .set((eb) => ({ revoked_at: eb.fn.coalesce('revoked_at', eb.fn<Date>('clock_timestamp')) }))
    .where('id', '=', key.id)
    .execute()
  if (key.projectId !== null) await closeStanding(trx, { projectId: key.projectId }, key.id)
}

export interface Rotation {
  readonly organisationId: string
  readonly keyId: string
  readonly secret: string
  readonly overlapSeconds: number
  /** Of the new key; undefined: as of the old one. */
  readonly expiresAt: Date | undefined
  /** The key that asks for it. */
  readonly madeBy: string
  readonly nowMs: number
}

export type Rotated =
  | { readonly ok: true; readonly key: ApiKey; readonly before: ApiKey }
  | { readonly ok: false; readonly reason: 'unknown' | 'ended' | 'rotated' | 'of_run' }

/**
 * Makes a key with the rights of another one, whose limits go on to bind both, and lets that one end after the overlap. The
 * new one has a standing envelope of its own; schedules that the old one would pay are paid by the new one.
 */
export async function rotateKey(trx: Trx, rotation: Rotation): Promise<Rotated> {
  const { organisationId, keyId, secret, overlapSeconds, madeBy, nowMs } = rotation
  const before = await lockKey(trx, organisationId, keyId)
  if (!before) return { ok: false, reason: 'unknown' }
  if (before.runId !== null) return { ok: false, reason: 'of_run' }
  const standing = await standingOf(trx, keyId)
  if (standing !== 'good') return { ok: false, reason: standing }
  const { projectId, name, scopes, constraints, allowedIps } = before
  const rights = { organisationId, projectId, name, scopes, constraints, allowedIps }
  const expiresAt = rotation.expiresAt ?? before.expiresAt
  const key = await createKey(trx, { ...rights, expiresAt, secret, rotatedFrom: keyId, madeBy, nowMs })
  await trx
    .updateTable('schedule')
    .set({ api_key_id: key.id })
    .where('api_key_id', '=', keyId)
    .where('state', '<>', 'deleted')
    .execute()
  if (overlapSeconds === 0) await end(trx, before)
  else {
    await sql`
      update api_key set expires_at = least(expires_at, clock_timestamp() + make_interval(secs => ${overlapSeconds}))
      where id = ${keyId}`.execute(trx)
  }
  return { ok: true, key, before }
}

async function standingOf(trx: Trx, keyId: string): Promise<'good' | 'ended' | 'rotated'> {
  const { rows } = await sql<{ isGood: boolean; isRotated: boolean }>`
    select k.revoked_at is null and coalesce(k.expires_at > clock_timestamp(), true) as "isGood", exists (
      select from api_key n where n.rotated_from = k.id and n.revoked_at is null
        and coalesce(n.expires_at > clock_timestamp(), true)
    ) as "isRotated"
    from api_key k where k.id = ${keyId}`.execute(trx)
  if (rows[0]?.isGood !== true) return 'ended'
  return rows[0].isRotated ? 'rotated' : 'good'
}

/** Revokes keys whose time is over, so that their money goes home; of any tenant. Many at once do no harm. */
export async function expireKeys(db: Kysely<Database>): Promise<number> {
  const { rows } = await sql<{ id: string; organisationId: string }>`
    select id, organisation_id as "organisationId" from api_key
    where revoked_at is null and expires_at <= clock_timestamp() order by expires_at limit ${TURN_LIMIT}`.execute(db)
  for (const { id, organisationId } of rows) {
    await db.transaction().execute(async (trx) => {
      const key = await lockKey(trx, organisationId, id)
      if (!key || key.revokedAt !== null) return
      await end(trx, key)
      const { projectId } = key
      const facts = { target: id, before: null, after: { expiresAt: key.expiresAt } }
      await writeAudit(trx, { organisationId, projectId, keyId: null, action: 'key.expire', ...facts })
    })
  }
  return rows.length
}
