import { sql, type Kysely, type Selectable, type Transaction } from 'kysely'
import { hintOf, hashOf, type ApiKey } from './api-key.ts'
import { OPERATOR_SCOPES, USUAL_OPERATOR_SCOPES } from '#contracts/names.ts'
import { writeAudit } from './audit.ts'
import { newId } from './ids.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'

export interface Organisation {
  readonly id: string
  readonly name: string
  readonly createdAt: Date
  readonly version: number
}

export interface Bootstrap {
  /** Under which it is configured, whatever its operators call it since. */
  readonly name: string
  readonly nowMs: number
  /** The operator key to ensure: given from outside, or `undefined` for "make one if there is none". */
  readonly operatorKey: string | undefined
  readonly makeKey: () => string
}

/**
 * Makes the organisation and its first operator key if they are missing. Answers the key that was made, which is the
 * only time it can be seen. Several processes may start at once: they take turns.
 */
export async function bootstrapOrganisation(db: Kysely<Database>, bootstrap: Bootstrap): Promise<string | undefined> {
  return db.transaction().execute(async (trx) => {
    await inTurn(trx)
    const organisationId = await ensureOrganisation(trx, bootstrap)
    const key = bootstrap.operatorKey ?? ((await hasOperator(trx, organisationId)) ? undefined : bootstrap.makeKey())
    if (key === undefined) return undefined
    const made = await trx
      .insertInto('api_key')
      .values({
        id: newId(bootstrap.nowMs),
        organisation_id: organisationId,
        project_id: null,
        name: 'operator',
        hint: hintOf(key),
        hash: hashOf(key),
        scopes: [...OPERATOR_SCOPES],
        revoked_at: null,
      })
      .onConflict((conflict) => conflict.column('hash').doNothing())
      .returning(['id', 'hint'])
      .executeTakeFirst()
    if (made) {
      const who = { organisationId, projectId: null, keyId: null }
      await writeAudit(trx, { ...who, action: 'key.create', target: made.id, before: null, after: made })
    }
    return bootstrap.operatorKey === undefined ? key : undefined
  })
}

async function ensureOrganisation(trx: Transaction<Database>, bootstrap: Bootstrap): Promise<string> {
  const known = await trx
    .selectFrom('organisation')
    .select('id')
    .where('configured_as', '=', bootstrap.name)
    .executeTakeFirst()
  if (known) return known.id
  const id = newId(bootstrap.nowMs)
  const { name } = bootstrap
  await trx.insertInto('organisation').values({ id, name, configured_as: name }).execute()
  return id
}

/** Whether it is one that a process is configured with: its operators are those of the installation. Others were made by them. */
export async function runsInstallation(db: Kysely<Database>, organisationId: string): Promise<boolean> {
  const row = await db
    .selectFrom('organisation')
    .select('configured_as')
    .where('id', '=', organisationId)
    .executeTakeFirst()
  return row !== undefined && row.configured_as !== null
}

async function hasOperator(trx: Transaction<Database>, organisationId: string): Promise<boolean> {
  const row = await trx
    .selectFrom('api_key')
    .select('id')
    .where('organisation_id', '=', organisationId)
    .where('project_id', 'is', null)
    .where('revoked_at', 'is', null)
    .limit(1)
    .executeTakeFirst()
  return row !== undefined
}

/** Several processes may start at once. */
async function inTurn(trx: Transaction<Database>): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended('bootstrap', 0))`.execute(trx)
}

/**
 * Makes another organisation and its first operator key, for a key of the installation: those who make it do not see it. Their
 * key is in its audit log.
 */
export async function makeOrganisation(
  trx: Transaction<Database>,
  made: {
    readonly organisationId: string
    readonly keyId: string
    readonly name: string
    readonly secret: string
    /** A key with the scope `installation`. */
    readonly madeBy: string
  },
): Promise<{ readonly organisation: Organisation; readonly key: ApiKey }> {
  const { organisationId, keyId, name, secret, madeBy } = made
  const asked = json({ organisationId, keyId, name, hint: hintOf(secret), hash: hashOf(secret).toString('hex') })
  const { rows } = await sql<{ at: Date }>`select make_organisation(${madeBy}, ${asked}::jsonb) as at`.execute(trx)
  const [row] = rows
  if (!row) throw new Error('an organisation that was made has no row')
  const organisation = { id: organisationId, name, createdAt: row.at, version: 1 }
  const rights = {
    scopes: [...USUAL_OPERATOR_SCOPES],
    constraints: null,
    allowedIps: null,
    rotatedFrom: null,
    runId: null,
  }
  const times = { createdAt: row.at, expiresAt: null, revokedAt: null, lastUsedAt: null }
  const key = { id: keyId, projectId: null, name: 'operator', hint: hintOf(secret), ...rights, ...times, version: 1 }
  return { organisation, key }
}

export async function renameOrganisation(
  trx: Transaction<Database>,
  { id, name }: { readonly id: string; readonly name: string },
): Promise<Organisation> {
  const row = await trx
    .updateTable('organisation')
    .set({ name, changed_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirstOrThrow()
  return viewOf(row)
}

export async function getOrganisation(db: Kysely<Database>, id: string): Promise<Organisation | undefined> {
  const row = await db.selectFrom('organisation').selectAll().where('id', '=', id).executeTakeFirst()
  return row && viewOf(row)
}

function viewOf(row: Selectable<Database['organisation']>): Organisation {
  return { id: row.id, name: row.name, createdAt: row.created_at, version: row.version }
}
