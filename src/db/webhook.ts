import type { Page } from '#contracts/api-page.ts'
import type { WebhookTopic } from '#contracts/api-webhook.ts'
import type { BalanceClass } from '#contracts/names.ts'
import { lowBalancesSchema } from '#contracts/stored.ts'
import { sql, type Kysely, type Selectable, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { newId } from './ids.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'
import { pageBy } from './page.ts'
import type { SecretBox, SecretPlace } from './secret-box.ts'

/** Of an organisation, those that are told: each is looked at several times a second. */
export const MOST_WEBHOOKS = 100

/** Below how much of a wallet's money it is told, in nano. */
export interface LowBalance {
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly belowNano: bigint
}

export interface Webhook {
  readonly id: string
  readonly projectId: string
  readonly url: string
  readonly topics: readonly WebhookTopic[]
  readonly lowBalance: readonly LowBalance[]
  readonly createdAt: Date
  readonly version: number
}

/** Whether the organisation of the project may have one more. Others wait with theirs until the transaction is over. */
export async function hasRoomForWebhook(trx: Transaction<Database>, { projectId }: Scope): Promise<boolean> {
  const { rows } = await sql<{ count: number }>`select webhooks_beside(${projectId}) as count`.execute(trx)
  return (rows[0]?.count ?? 0) < MOST_WEBHOOKS
}

/** From its commit on: what is under way then is told as well. */
export async function createWebhook(
  trx: Transaction<Database>,
  { projectId }: Scope,
  webhook: Pick<Webhook, 'url' | 'topics' | 'lowBalance'> & {
    readonly secret: Buffer
    /** Encrypts the secret. */
    readonly box: SecretBox
    readonly nowMs: number
  },
): Promise<Webhook> {
  const id = newId(webhook.nowMs)
  const { bytes, encryptedBy } = webhook.box.encrypt(webhookSecretPlace({ id, projectId }), webhook.secret)
  const row = await trx
    .insertInto('webhook')
    .values({
      id,
      project_id: projectId,
      url: webhook.url,
      topics: [...webhook.topics],
      secret: bytes,
      encrypted_by: encryptedBy,
      low_balance: json(webhook.lowBalance),
      ended_at: null,
    })
    .returningAll()
    .executeTakeFirstOrThrow()
  return webhookOf(row)
}

/** What the secret of a webhook is bound to. */
export function webhookSecretPlace({ id, projectId }: Pick<Webhook, 'id' | 'projectId'>): SecretPlace {
  return ['webhook', 'secret', id, projectId]
}

/** Those that are told, newest first. */
export async function listWebhooks(db: Kysely<Database>, scope: Scope, page: Page): Promise<readonly Webhook[]> {
  const rows = await db
    .selectFrom('webhook')
    .selectAll()
    .where('project_id', '=', scope.projectId)
    .where('ended_at', 'is', null)
    .where(pageBy(sql.ref('id'), page).follows)
    .orderBy('id', page.order)
    .limit(page.limit)
    .execute()
  return rows.map(webhookOf)
}

/** Undefined when it has ended. */
export async function getWebhook(db: Kysely<Database>, scope: Scope, webhookId: string): Promise<Webhook | undefined> {
  const row = await living(db, scope, webhookId).executeTakeFirst()
  return row && webhookOf(row)
}

/** The same, and nobody else changes it until the transaction ends. */
export async function lockWebhook(
  trx: Transaction<Database>,
  scope: Scope,
  webhookId: string,
): Promise<Webhook | undefined> {
  const row = await living(trx, scope, webhookId).forNoKeyUpdate().executeTakeFirst()
  return row && webhookOf(row)
}

function living(db: Kysely<Database>, scope: Scope, webhookId: string) {
  return db
    .selectFrom('webhook')
    .selectAll()
    .where('project_id', '=', scope.projectId)
    .where('id', '=', webhookId)
    .where('ended_at', 'is', null)
}

/** What is told from then on, and where: also what waits. */
export async function changeWebhook(
  trx: Transaction<Database>,
  scope: Scope,
  { id, url, topics, lowBalance }: Pick<Webhook, 'id' | 'url' | 'topics' | 'lowBalance'>,
): Promise<Webhook> {
  const row = await trx
    .updateTable('webhook')
    .set({
      url,
      topics: [...topics],
      low_balance: json(lowBalance),
      ...(topics.includes('threshold') && {
        thresholds_since: sql<Date>`case when 'threshold' = any(topics) then thresholds_since else clock_timestamp() end`,
      }),
    })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirstOrThrow()
  return webhookOf(row)
}

/** Nothing is told there from then on, what waits neither. Undefined when it has ended before. */
export async function endWebhook(
  trx: Transaction<Database>,
  scope: Scope,
  webhookId: string,
): Promise<Webhook | undefined> {
  const ended = await trx
    .updateTable('webhook')
    .set({ ended_at: sql<Date>`clock_timestamp()` })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', webhookId)
    .where('ended_at', 'is', null)
    .returningAll()
    .executeTakeFirst()
  if (!ended) return undefined
  await trx
    .updateTable('webhook_delivery')
    .set({ state: 'dead', last_error: 'the webhook was deleted' })
    .where('project_id', '=', scope.projectId)
    .where('webhook_id', '=', webhookId)
    .where('state', '=', 'waiting')
    .execute()
  return webhookOf(ended)
}

export function webhookOf(row: Selectable<Database['webhook']>): Webhook {
  return {
    id: row.id,
    projectId: row.project_id,
    url: row.url,
    topics: row.topics,
    lowBalance: lowBalancesSchema.parse(row.low_balance),
    createdAt: row.created_at,
    version: row.version,
  }
}
