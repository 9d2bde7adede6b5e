import type { Constraints } from '#contracts/constraints.ts'
import { keyConstraintsSchema } from '#contracts/stored.ts'
import type { Kysely, Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { closeStanding } from './envelope.ts'
import { newId, sha256 } from './ids.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'

/** Who asks. Without a project it is an operator of the organisation. */
export interface Caller {
  readonly keyId: string
  readonly organisationId: string
  readonly projectId: string | null
}

/** Who asks, with what its key was made for. */
export interface KeyHolder extends Caller {
  /** What its calls may use; null: everything. */
  readonly constraints: Constraints | null
  /** The external run that it works for, and for nothing else; null for all other keys. */
  readonly run: { readonly id: string; readonly isOver: boolean } | null
}

export interface ApiKey {
  readonly id: string
  readonly projectId: string
  readonly name: string
  readonly hint: string
  readonly constraints: Constraints | null
  readonly createdAt: Date
  readonly revokedAt: Date | null
}

/** `purser_pk_` and four characters: enough to tell keys apart, nothing to guess from. */
const HINT_LENGTH = 14

export function hashOf(secret: string): Buffer {
  return sha256(secret)
}

export function hintOf(secret: string): string {
  return secret.slice(0, HINT_LENGTH)
}

/** The owner of a secret, unless the key is unknown or revoked. */
export async function callerOf(db: Kysely<Database>, secret: string): Promise<KeyHolder | undefined> {
  const row = await db
    .selectFrom('api_key as k')
    .leftJoin('run', 'run.id', 'k.run_id')
    .select(['k.id', 'k.organisation_id', 'k.project_id', 'k.constraints', 'k.run_id', 'run.finished_at'])
    .where('k.hash', '=', hashOf(secret))
    .where('k.revoked_at', 'is', null)
    .executeTakeFirst()
  if (!row) return undefined
  const { id, organisation_id: organisationId, project_id: projectId, run_id: runId } = row
  const constraints = keyConstraintsSchema.parse(row.constraints)
  const run = runId === null ? null : { id: runId, isOver: row.finished_at !== null }
  return { keyId: id, organisationId, projectId, constraints, run }
}

/** Whether a key is still good, for streams that outlive the request's own check. */
export async function isKeyValid(db: Kysely<Database>, keyId: string): Promise<boolean> {
  const row = await db
    .selectFrom('api_key')
    .select('id')
    .where('id', '=', keyId)
    .where('revoked_at', 'is', null)
    .executeTakeFirst()
  return row !== undefined
}

export async function createKey(
  db: Kysely<Database>,
  scope: Scope,
  key: {
    readonly organisationId: string
    readonly name: string
    readonly secret: string
    readonly nowMs: number
    readonly constraints?: Constraints | undefined
    /** It works for this external run alone. */
    readonly runId?: string
  },
): Promise<ApiKey> {
  const row = await db
    .insertInto('api_key')
    .values({
      id: newId(key.nowMs),
      organisation_id: key.organisationId,
      project_id: scope.projectId,
      name: key.name,
      hint: hintOf(key.secret),
      hash: hashOf(key.secret),
      constraints: key.constraints ? json(key.constraints) : null,
      revoked_at: null,
      run_id: key.runId ?? null,
    })
    .returning(['id', 'name', 'hint', 'created_at'])
    .executeTakeFirstOrThrow()
  return {
    id: row.id,
    projectId: scope.projectId,
    name: row.name,
    hint: row.hint,
    constraints: key.constraints ?? null,
    createdAt: row.created_at,
    revokedAt: null,
  }
}

/** All keys of a project but those of its runs, revoked ones included, newest first. */
export async function listKeys(db: Kysely<Database>, scope: Scope): Promise<readonly ApiKey[]> {
  const rows = await db
    .selectFrom('api_key')
    .select(['id', 'name', 'hint', 'constraints', 'created_at', 'revoked_at'])
    .where('project_id', '=', scope.projectId)
    .where('run_id', 'is', null)
    .orderBy('id', 'desc')
    .execute()
  return rows.map((row) => ({
    id: row.id,
    projectId: scope.projectId,
    name: row.name,
    hint: row.hint,
    constraints: keyConstraintsSchema.parse(row.constraints),
    createdAt: row.created_at,
    revokedAt: row.revoked_at,
  }))
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

/**
 * From its commit on the key opens nothing, and no call of its standing envelope begins: its money goes home. Revoking it
 * again changes nothing. False when there is no such key.
 */
export async function revokeKey(trx: Transaction<Database>, scope: Scope, keyId: string): Promise<boolean> {
  const row = await trx
    .updateTable('api_key')
    .set((eb) => ({ revoked_at: eb.fn.coalesce('revoked_at', eb.fn<Date>('clock_timestamp')) }))
    .where('project_id', '=', scope.projectId)
    .where('id', '=', keyId)
    .returning('id')
    .executeTakeFirst()
  if (!row) return false
  await closeStanding(trx, scope, keyId)
  return true
}
