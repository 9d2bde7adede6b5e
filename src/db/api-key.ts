import type { Page } from '#contracts/api-page.ts'
import type { Constraints } from '#contracts/constraints.ts'
import type { KeyScope } from '#contracts/names.ts'
import { keyConstraintsSchema, keyScopesSchema } from '#contracts/stored.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import type { BlockList } from 'node:net'
import type { Scope } from './database.ts'
import { newId, sha256 } from './ids.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'
import { pageBy } from './page.ts'

/** Who asks. Without a project it is an operator of the organisation. */
export interface Caller {
  readonly keyId: string
  readonly organisationId: string
  readonly projectId: string | null
}

/** Who asks, with what its key was made for. */
export interface KeyHolder extends Caller {
  readonly scopes: readonly KeyScope[]
  /** What its calls may use; null: everything. */
  readonly constraints: Constraints | null
  /** Where it may ask from; null: from anywhere. */
  readonly addresses: BlockList | null
  /** The external run that it works for, and for nothing else; null for all other keys. */
  readonly run: { readonly id: string; readonly isOver: boolean } | null
}

export interface ApiKey {
  readonly id: string
  readonly projectId: string | null
  readonly name: string
  readonly hint: string
  readonly scopes: readonly KeyScope[]
  readonly constraints: Constraints | null
  readonly allowedIps: readonly string[] | null
  readonly createdAt: Date
  readonly expiresAt: Date | null
  readonly revokedAt: Date | null
  readonly lastUsedAt: Date | null
  readonly rotatedFrom: string | null
  /** The external run that it was issued for. */
  readonly runId: string | null
  readonly version: number
}

export interface NewKey {
  readonly organisationId: string
  /** Null: an operator's. */
  readonly projectId: string | null
  readonly name: string
  readonly secret: string
  readonly scopes: readonly KeyScope[]
  readonly constraints?: Constraints | null | undefined
  readonly allowedIps?: readonly string[] | null | undefined
  readonly expiresAt?: Date | null | undefined
  readonly rotatedFrom?: string
  /** It works for this external run alone. */
  readonly runId?: string
  /** The key that it was asked for with. Left out: nobody's, the installation makes it itself. */
  readonly madeBy?: string
  readonly nowMs: number
}

/** `purser_pk_` and four characters: enough to tell keys apart, nothing to guess from. */
const HINT_LENGTH = 14

export function hashOf(secret: string): Buffer {
  return sha256(secret)
}

export function hintOf(secret: string): string {
  return secret.slice(0, HINT_LENGTH)
}

export async function createKey(db: Kysely<Database>, key: NewKey): Promise<ApiKey> {
  const { allowedIps } = key
  const row = await db
    .insertInto('api_key')
    .values({
      id: newId(key.nowMs),
      organisation_id: key.organisationId,
      project_id: key.projectId,
      name: key.name,
      hint: hintOf(key.secret),
      hash: hashOf(key.secret),
      scopes: [...key.scopes],
      constraints: key.constraints ? json(key.constraints) : null,
      // As networks: what stands beyond the mask of `10.0.0.1/8` means nothing.
      allowed_ips: allowedIps
        ? sql<string>`(select array_agg(network(a.ip::inet)) from unnest(${[...allowedIps]}::text[]) a(ip))`
        : null,
      expires_at: key.expiresAt ?? null,
      rotated_from: key.rotatedFrom ?? null,
      revoked_at: null,
      run_id: key.runId ?? null,
      made_by: key.madeBy ?? null,
    })
    .returning('id')
    .executeTakeFirstOrThrow()
  const made = await getKey(db, key.organisationId, row.id)
  if (!made) throw new Error('a key that was made is not there')
  return made
}

/** A key of a project or of the organisation itself. Undefined for a foreign id exactly as for an unknown one. */
export async function getKey(db: Kysely<Database>, organisationId: string, keyId: string): Promise<ApiKey | undefined> {
  const { rows } = await sql<Row>`
    ${keys} where k.organisation_id = ${organisationId} and k.id = ${keyId}`.execute(db)
  return rows[0] && viewOf(rows[0])
}

/** The same, and nobody else changes it until the transaction ends. */
export async function lockKey(
  trx: Transaction<Database>,
  organisationId: string,
  keyId: string,
): Promise<ApiKey | undefined> {
  await sql`select from api_key where organisation_id = ${organisationId} and id = ${keyId} for no key update`.execute(
    trx,
  )
  return getKey(trx, organisationId, keyId)
}

/** Gives a key that the transaction has locked another name: all else that it is, it is for good. */
export async function renameKey(trx: Transaction<Database>, key: ApiKey, name: string): Promise<ApiKey> {
  const { version } = await trx
    .updateTable('api_key')
    .set({ name })
    .where('id', '=', key.id)
    .returning('version')
    .executeTakeFirstOrThrow()
  return { ...key, name, version }
}

/** Keys of a project but those of its runs, or the operators' keys of an organisation, revoked ones included; a place is an id. */
export async function listKeys(
  db: Kysely<Database>,
  owner: { readonly organisationId: string; readonly projectId: string | null },
  page: Page & { readonly state?: 'in_force' | 'ended' | undefined },
): Promise<readonly ApiKey[]> {
  const { follows, order } = pageBy(sql`k.id`, page)
  const isEnded = sql`(k.revoked_at is not null or coalesce(k.expires_at <= clock_timestamp(), false))`
  const { organisationId, projectId } = owner
  const { rows } = await sql<Row>`
    ${keys} where k.organisation_id = ${organisationId} and k.project_id is not distinct from ${projectId}::uuid
      and k.run_id is null
      and ${follows} and (${page.state ?? null}::text is null or ${isEnded} = (${page.state ?? null} = 'ended'))
    order by ${order} limit ${page.limit}`.execute(db)
  return rows.map(viewOf)
}

/** What the calls of a key may use; null: everything. */
export async function constraintsOfKey(db: Kysely<Database>, scope: Scope, keyId: string): Promise<Constraints | null> {
  const row = await db
    .selectFrom('api_key')
    .select('constraints')
    .where('project_id', '=', scope.projectId)
    .where('id', '=', keyId)
    .executeTakeFirstOrThrow()
  return keyConstraintsSchema.parse(row.constraints)
}

const keys = sql`
  select k.id, k.project_id as "projectId", k.name, k.hint, k.scopes, k.constraints,
    k.allowed_ips::text[] as "allowedIps", k.created_at as "createdAt", k.expires_at as "expiresAt",
    k.revoked_at as "revokedAt", k.last_used_at as "lastUsedAt", k.rotated_from as "rotatedFrom", k.run_id as "runId",
    k.version
  from api_key k`

interface Row extends Omit<ApiKey, 'scopes' | 'constraints'> {
  readonly scopes: unknown
  readonly constraints: unknown
}

function viewOf({ scopes, constraints, ...row }: Row): ApiKey {
  return { ...row, scopes: keyScopesSchema.parse(scopes), constraints: keyConstraintsSchema.parse(constraints) }
}
