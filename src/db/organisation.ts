import { sql, type Kysely, type Transaction } from 'kysely'
import { hintOf, hashOf } from './api-key.ts'
import { OPERATOR_SCOPES } from '#contracts/names.ts'
import { writeAudit } from './audit.ts'
import { newId } from './ids.ts'
import type { Database } from './schema.ts'

export interface Bootstrap {
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
    await sql`select pg_advisory_xact_lock(hashtextextended('bootstrap', 0))`.execute(trx)
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
    .where('name', '=', bootstrap.name)
    .orderBy('created_at')
    .limit(1)
    .executeTakeFirst()
  if (known) return known.id
  const id = newId(bootstrap.nowMs)
  await trx.insertInto('organisation').values({ id, name: bootstrap.name }).execute()
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
