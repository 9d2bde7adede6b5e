import type { ProviderSettings } from '#contracts/provider-settings.ts'
import { sql, type Kysely, type Selectable, type Transaction } from 'kysely'
import type { Database } from './schema.ts'
import type { EncryptedSecret, SecretBox, SecretPlace } from './secret-box.ts'

/** A provider that an operator added. Its key is not in it. */
export interface StoredProvider extends Omit<ProviderSettings, 'apiKey'> {
  /** The end of its key; of a short one nothing. */
  readonly keyHint: string
  readonly keyChangedAt: Date
  /** The id of the key that encrypts its own. */
  readonly encryptedBy: string
  readonly createdAt: Date
  readonly changedAt: Date
  /** Rises with each change. */
  readonly version: number
}

/** Of the installation: each process looks each second which there are. */
export const MOST_PROVIDERS = 100

/** Characters of a key that are shown, of a key that has many more. */
const HINT_LENGTH = 4
const HIDDEN_LENGTH = 12

/** What people know a key by. @example 'sk-0123456789abcdef' is '…cdef' */
export function keyHintOf(apiKey: string): string {
  return apiKey.length < HINT_LENGTH + HIDDEN_LENGTH ? '…' : `…${apiKey.slice(-HINT_LENGTH)}`
}

/** By name. Serves the installation, as everything here: providers have no tenant. */
export async function listProviders(db: Kysely<Database>): Promise<readonly StoredProvider[]> {
  const rows = await db.selectFrom('provider').selectAll().orderBy('name').execute()
  return rows.map(storedProviderOf)
}

export async function findProvider(db: Kysely<Database>, name: string): Promise<StoredProvider | undefined> {
  const row = await db.selectFrom('provider').selectAll().where('name', '=', name).executeTakeFirst()
  return row && storedProviderOf(row)
}

/** The same, and nobody else changes it until the transaction is over. */
export async function lockProvider(trx: Transaction<Database>, name: string): Promise<StoredProvider | undefined> {
  const row = await trx.selectFrom('provider').selectAll().where('name', '=', name).forNoKeyUpdate().executeTakeFirst()
  return row && storedProviderOf(row)
}

/** Why there is none: one of that name, or as many as there may be. */
export type NotAdded = 'already_exists' | 'too_many'

export async function addProvider(
  trx: Transaction<Database>,
  box: SecretBox,
  { name, apiKey, ...settings }: ProviderSettings,
): Promise<StoredProvider | NotAdded> {
  // In turn: who adds one at the same time is counted.
  await sql`select pg_advisory_xact_lock(hashtextextended('providers', 0))`.execute(trx)
  const row = await trx
    .insertInto('provider')
    .values({ name, ...columnsOf(settings), ...keyColumnsOf(box, { name, apiKey, baseUrl: settings.baseUrl }) })
    .onConflict((conflict) => conflict.doNothing())
    .returningAll()
    .executeTakeFirst()
  if (!row) return 'already_exists'
  const { count } = await trx
    .selectFrom('provider')
    .select((eb) => eb.fn.countAll<bigint>().as('count'))
    .executeTakeFirstOrThrow()
  return count > MOST_PROVIDERS ? 'too_many' : storedProviderOf(row)
}

/**
 * Changes one that the transaction has locked. Its key is encrypted for its address: a new address needs the key again.
 *
 * @param key left out: as it was
 */
export async function changeProvider(
  trx: Transaction<Database>,
  { name, ...settings }: Omit<ProviderSettings, 'apiKey'>,
  key?: { readonly box: SecretBox; readonly apiKey: string },
): Promise<StoredProvider> {
  const { baseUrl } = settings
  const now = sql<Date>`clock_timestamp()`
  const row = await trx
    .updateTable('provider')
    .set({
      ...columnsOf(settings),
      ...(key && { ...keyColumnsOf(key.box, { name, apiKey: key.apiKey, baseUrl }), key_changed_at: now }),
      version: sql<bigint>`nextval('provider_version')`,
      changed_at: now,
    })
    .where('name', '=', name)
    .returningAll()
    .executeTakeFirstOrThrow()
  return storedProviderOf(row)
}

export async function removeProvider(trx: Transaction<Database>, name: string): Promise<void> {
  await trx.deleteFrom('provider').where('name', '=', name).execute()
}

/** Which there are, and in which version: whoever has made something of them asks this before reading them again. */
export async function providerVersions(db: Kysely<Database>): Promise<ReadonlyMap<string, bigint>> {
  const rows = await db.selectFrom('provider').select(['name', 'version']).execute()
  return new Map(rows.map(({ name, version }) => [name, version]))
}

/** One with its key, still encrypted: `apiKeyOf` reads it. */
export interface LockedProvider {
  readonly settings: Omit<ProviderSettings, 'apiKey'>
  readonly version: bigint
  readonly apiKey: EncryptedSecret
}

export async function lockedProviders(
  db: Kysely<Database>,
  names: readonly string[],
): Promise<readonly LockedProvider[]> {
  const rows = await db.selectFrom('provider').selectAll().where('name', 'in', names).execute()
  return rows.map((row) => ({
    settings: settingsOf(row),
    version: row.version,
    apiKey: { bytes: row.api_key, encryptedBy: row.encrypted_by },
  }))
}

/** @throws SecretUnreadable when no key of the box opens it, or somebody has changed the row by hand */
export function apiKeyOf(box: SecretBox, { settings, apiKey }: LockedProvider): string {
  return box.decrypt(providerKeyPlace(settings), apiKey).toString()
}

/** Beside another address the key is not read: who can write the table could else have it sent to where he likes. */
export function providerKeyPlace({ name, baseUrl }: Pick<ProviderSettings, 'name' | 'baseUrl'>): SecretPlace {
  return ['provider', 'api_key', name, baseUrl]
}

function keyColumnsOf(box: SecretBox, settings: Pick<ProviderSettings, 'name' | 'baseUrl' | 'apiKey'>) {
  const { bytes, encryptedBy } = box.encrypt(providerKeyPlace(settings), Buffer.from(settings.apiKey))
  return { api_key: bytes, encrypted_by: encryptedBy, key_hint: keyHintOf(settings.apiKey) }
}

function columnsOf({ kind, baseUrl, maxTokensField, promptCache }: Omit<ProviderSettings, 'name' | 'apiKey'>) {
  return { kind, base_url: baseUrl, max_tokens_field: maxTokensField ?? null, prompt_cache: promptCache ?? null }
}

function settingsOf(row: Selectable<Database['provider']>): Omit<ProviderSettings, 'apiKey'> {
  return {
    name: row.name,
    kind: row.kind,
    baseUrl: row.base_url,
    maxTokensField: row.max_tokens_field ?? undefined,
    promptCache: row.prompt_cache ?? undefined,
  }
}

function storedProviderOf(row: Selectable<Database['provider']>): StoredProvider {
  return {
    ...settingsOf(row),
    keyHint: row.key_hint,
    keyChangedAt: row.key_changed_at,
    encryptedBy: row.encrypted_by,
    createdAt: row.created_at,
    changedAt: row.changed_at,
    version: Number(row.version),
  }
}
