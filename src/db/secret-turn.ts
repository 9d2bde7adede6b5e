import { sql, type Kysely, type Transaction } from 'kysely'
import { providerKeyPlace } from './provider.ts'
import type { Database } from './schema.ts'
import { SecretUnreadable, type SecretBox } from './secret-box.ts'
import { webhookSecretPlace } from './webhook.ts'

/** Rows of one transaction, which has five seconds. */
const MOST = 100

/** What a turn has done. */
export interface SecretTurn {
  readonly encrypted: number
  /** Secrets that no key here opens: left as they are. */
  readonly unreadable: number
}

const NOTHING_DONE: SecretTurn = Object.freeze({ encrypted: 0, unreadable: 0 })

/**
 * Encrypts with the first key of the box what stands in clear or under another one, of all tenants. Not while a living
 * process encrypts with another key: it may not have this one, and could read nothing any more. Any number of processes may
 * do so at once; each row is taken by one.
 */
export async function encryptAgain(db: Kysely<Database>, box: SecretBox): Promise<SecretTurn> {
  if (!(await isAgreed(db, box.keyId))) return NOTHING_DONE
  const webhooks = await allPages(db, (trx, after) => webhookPage(trx, box, after))
  const providers = await allPages(db, (trx, after) => providerPage(trx, box, after))
  return {
    encrypted: webhooks.encrypted + providers.encrypted,
    unreadable: webhooks.unreadable + providers.unreadable,
  }
}

/** How many secrets of all tenants each key encrypts; null: in clear. One that none is under may leave the file. */
export async function secretCounts(
  db: Kysely<Database>,
): Promise<readonly { readonly encryptedBy: string | null; readonly count: number }[]> {
  const { rows } = await sql<{ encryptedBy: string | null; count: number }>`
    select encrypted_by as "encryptedBy", secrets as count from secret_counts()`.execute(db)
  return rows
}

/** Processes without a key read no secret, and are not asked. */
async function isAgreed(db: Kysely<Database>, keyId: string): Promise<boolean> {
  const { rows } = await sql`
    select 1 from instance
    where lease_until > clock_timestamp() and encrypts_with is not null and encrypts_with <> ${keyId} limit 1`.execute(
    db,
  )
  return rows.length === 0
}

interface Page extends SecretTurn {
  /** Undefined: it was the last one. */
  readonly last: string | undefined
}

async function allPages(
  db: Kysely<Database>,
  take: (trx: Transaction<Database>, after: string | undefined) => Promise<Page>,
): Promise<SecretTurn> {
  let { encrypted, unreadable } = NOTHING_DONE
  let last: string | undefined
  do {
    const after = last
    const page = await db.transaction().execute((trx) => take(trx, after))
    encrypted += page.encrypted
    unreadable += page.unreadable
    last = page.last
  } while (last !== undefined)
  return { encrypted, unreadable }
}

async function webhookPage(trx: Transaction<Database>, box: SecretBox, after: string | undefined): Promise<Page> {
  const rows = await trx
    .selectFrom('webhook')
    .select(['id', 'project_id as projectId', 'secret', 'encrypted_by as encryptedBy'])
    .where((eb) => eb.or([eb('encrypted_by', 'is', null), eb('encrypted_by', '<>', box.keyId)]))
    .$if(after !== undefined, (query) => query.where('id', '>', after ?? ''))
    .orderBy('id')
    .limit(MOST)
    .forNoKeyUpdate()
    .skipLocked()
    .execute()
  let encrypted = 0
  for (const { id, projectId, secret: bytes, encryptedBy } of rows) {
    const place = webhookSecretPlace({ id, projectId })
    const secret = encryptedBy === null ? bytes : readable(() => box.decrypt(place, { bytes, encryptedBy }))
    if (!secret) continue
    const again = box.encrypt(place, secret)
    const columns = { secret: again.bytes, encrypted_by: again.encryptedBy }
    await trx.updateTable('webhook').set(columns).where('id', '=', id).where('project_id', '=', projectId).execute()
    encrypted += 1
  }
  return { encrypted, unreadable: rows.length - encrypted, last: rows.length < MOST ? undefined : rows.at(-1)?.id }
}

async function providerPage(trx: Transaction<Database>, box: SecretBox, after: string | undefined): Promise<Page> {
  const rows = await trx
    .selectFrom('provider')
    .select(['name', 'base_url as baseUrl', 'api_key as bytes', 'encrypted_by as encryptedBy'])
    .where('encrypted_by', '<>', box.keyId)
    .$if(after !== undefined, (query) => query.where('name', '>', after ?? ''))
    .orderBy('name')
    .limit(MOST)
    .forNoKeyUpdate()
    .skipLocked()
    .execute()
  let encrypted = 0
  for (const { name, baseUrl, bytes, encryptedBy } of rows) {
    const place = providerKeyPlace({ name, baseUrl })
    const secret = readable(() => box.decrypt(place, { bytes, encryptedBy }))
    if (!secret) continue
    const again = box.encrypt(place, secret)
    const columns = { api_key: again.bytes, encrypted_by: again.encryptedBy }
    await trx.updateTable('provider').set(columns).where('name', '=', name).execute()
    encrypted += 1
  }
  return { encrypted, unreadable: rows.length - encrypted, last: rows.length < MOST ? undefined : rows.at(-1)?.name }
}

function readable(read: () => Buffer): Buffer | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof SecretUnreadable) return undefined
    throw error
  }
}
