import { sql, type Kysely, type Selectable, type Transaction } from 'kysely'
import { hintOf, hashOf } from './api-key.ts'
import { OPERATOR_SCOPES } from '#contracts/names.ts'
import { writeAudit } from './audit.ts'
import { newId } from './ids.ts'
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

/** Who makes or names organisations takes turns, so that no two get one name. */
async function inTurn(trx: Transaction<Database>): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended('bootstrap', 0))`.execute(trx)
}

/** Undefined when there is one of this name. It has no key yet. */
export async function createOrganisation(
  trx: Transaction<Database>,
  { name, nowMs }: { readonly name: string; readonly nowMs: number },
): Promise<Organisation | undefined> {
  await inTurn(trx)
  if (await isTaken(trx, { name, id: null })) return undefined
  const row = await trx
    .insertInto('organisation')
    .values({ id: newId(nowMs), name })
    .returningAll()
    .executeTakeFirstOrThrow()
  return viewOf(row)
}

/** Undefined when another one has this name. */
export async function renameOrganisation(
  trx: Transaction<Database>,
  { id, name }: { readonly id: string; readonly name: string },
): Promise<Organisation | undefined> {
  await inTurn(trx)
  if (await isTaken(trx, { name, id })) return undefined
  const row = await trx
    .updateTable('organisation')
    .set({ name, changed_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirstOrThrow()
  return viewOf(row)
}

async function isTaken(
  trx: Transaction<Database>,
  { name, id }: { readonly name: string; readonly id: string | null },
): Promise<boolean> {
  const row = await trx
    .selectFrom('organisation')
    .select('id')
    .where('name', '=', name)
    .where(sql<boolean>`id is distinct from ${id}::uuid`)
    .limit(1)
    .executeTakeFirst()
  return row !== undefined
}

export async function getOrganisation(db: Kysely<Database>, id: string): Promise<Organisation | undefined> {
  const row = await db.selectFrom('organisation').selectAll().where('id', '=', id).executeTakeFirst()
  return row && viewOf(row)
}

function viewOf(row: Selectable<Database['organisation']>): Organisation {
  return { id: row.id, name: row.name, createdAt: row.created_at, version: row.version }
}
