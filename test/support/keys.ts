import type { Scope } from '#db/database.ts'
import { revokeKey, type Revocation } from '#db/key-end.ts'
import type { Database } from '#db/schema.ts'
import type { Kysely, Transaction } from 'kysely'

/** Revokes a key of a project, as its operator does. */
export async function revokeOwnKey(trx: Transaction<Database>, scope: Scope, keyId: string): Promise<Revocation> {
  return revokeKey(trx, await organisationOf(trx, scope), keyId)
}

export async function organisationOf(db: Kysely<Database>, { projectId }: Scope): Promise<string> {
  const { organisation_id: id } = await db
    .selectFrom('project')
    .select('organisation_id')
    .where('id', '=', projectId)
    .executeTakeFirstOrThrow()
  return id
}
