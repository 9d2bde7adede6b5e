import type { Page } from '#contracts/api-page.ts'
import type { WebhookTopic } from '#contracts/api-webhook.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { newId } from './ids.ts'
import { json, storableText } from './json.ts'
import type { Database } from './schema.ts'
import { pageBy, within, type Period } from './page.ts'
import { SecretUnreadable, type SecretKeys } from './secret-box.ts'
import { webhookSecretPlace, type Webhook } from './webhook.ts'

/** What a webhook is to be told; the same `source` is told once. */
export interface Told {
  readonly topic: WebhookTopic
  readonly source: string
  readonly body: Readonly<Record<string, unknown>>
}

/** Makes deliveries of what is to be told, of each source one. */
export async function deliverLater(
  trx: Transaction<Database>,
  { id, projectId }: Webhook,
  { told, nowMs }: { readonly told: readonly Told[]; readonly nowMs: number },
): Promise<void> {
  if (told.length === 0) return
  await trx
    .insertInto('webhook_delivery')
    .values(
      told.map(({ topic, source, body }) => ({
        id: newId(nowMs),
        webhook_id: id,
        project_id: projectId,
        source,
        topic,
        body: json(body),
        last_status: null,
        last_error: null,
        delivered_at: null,
      })),
    )
    .onConflict((conflict) => conflict.columns(['webhook_id', 'source']).doNothing())
    .execute()
}

/** A delivery that is to be sent now, by whoever took it. */
export interface DueDelivery {
  readonly id: string
  readonly webhookId: string
  readonly projectId: string
  readonly url: string
  /** As it is stored: `webhookSecretOf` reads it. */
  readonly secret: Buffer
  /** Null: in clear, from before there was a key. */
  readonly encryptedBy: string | null
  readonly body: unknown
  /** This try included. */
  readonly tries: number
}

export interface Delivery {
  readonly id: string
  readonly topic: WebhookTopic
  readonly body: unknown
  readonly state: 'waiting' | 'delivered' | 'dead'
  readonly tries: number
  readonly dueAt: Date
  readonly lastStatus: number | null
  readonly lastError: string | null
  readonly createdAt: Date
  readonly deliveredAt: Date | null
}

/** How many deliveries a process may take. */
export interface TakeLimits {
  readonly limit: number
  /** Of one project, with those that the process is sending. */
  readonly ofProject: number
  /** How many that are, by project. */
  readonly sending: ReadonlyMap<string, number>
}

/**
 * Takes deliveries that are due, of all tenants in turn: the longest due of each project, then the next of each; who has some on
 * their way comes after them. They are nobody else's until `leaseMs` are over: should this process die, they are sent again, so
 * a receiver may hear of one twice.
 */
export async function takeDue(
  db: Kysely<Database>,
  { limit, ofProject, sending, leaseMs }: TakeLimits & { readonly leaseMs: number },
): Promise<readonly DueDelivery[]> {
  // Whoever has something waiting, found by jumping from one project to the next in the index.
  const { rows } = await sql<DueDelivery>`
    with recursive owner as (
      (select project_id from webhook_delivery where state = 'waiting' order by project_id limit 1)
      union all
      select (
        select n.project_id from webhook_delivery n where n.state = 'waiting' and n.project_id > o.project_id
        order by n.project_id limit 1
      ) from owner o where o.project_id is not null
    ), turn as (
      select due.id, due.due_at, due.place from owner o
      left join unnest(${[...sending.keys()]}::uuid[], ${[...sending.values()]}::integer[]) s (project_id, count)
        on s.project_id = o.project_id
      cross join lateral (
        select w.id, w.due_at, coalesce(s.count, 0) + row_number() over (order by w.due_at) as place from (
          select id, due_at from webhook_delivery
          where project_id = o.project_id and state = 'waiting' and due_at <= clock_timestamp()
          order by due_at limit greatest(${ofProject}::integer - coalesce(s.count, 0), 0)
        ) w
      ) due
    )
    update webhook_delivery d
    set tries = d.tries + 1, due_at = clock_timestamp() + ${leaseMs}::float8 * interval '1 millisecond'
    from webhook w
    where w.id = d.webhook_id and d.id in (
      select id from webhook_delivery
      where id in (select id from turn order by place, due_at limit ${limit})
        and state = 'waiting' and due_at <= clock_timestamp()
      for no key update skip locked
    )
    returning d.id, w.id as "webhookId", w.project_id as "projectId", w.url, w.secret,
      w.encrypted_by as "encryptedBy", d.body, d.tries`.execute(db)
  return rows
}

/** What a delivery is signed with. @throws SecretUnreadable when no key here opens it */
export function webhookSecretOf(
  keys: SecretKeys | undefined,
  { webhookId: id, projectId, secret: bytes, encryptedBy }: DueDelivery,
): Buffer {
  if (encryptedBy === null) return bytes
  if (!keys) throw new SecretUnreadable('PURSER_SECRETS_KEY_FILE is not set in this process: set it, and start again')
  return keys.now().decrypt(webhookSecretPlace({ id, projectId }), { bytes, encryptedBy })
}

/** How a try went. Left out `retryInMs`: it is given up, unless it was heard. */
export interface DeliveryOutcome {
  readonly id: string
  readonly wasHeard: boolean
  readonly status: number | null
  readonly error: string | null
  readonly retryInMs?: number
  /** It could not be tried: that was none of the tries it has. */
  readonly isUntried?: boolean
}

export async function noteOutcome(
  db: Kysely<Database>,
  { id, wasHeard, status, error, retryInMs, isUntried = false }: DeliveryOutcome,
): Promise<void> {
  const last = { last_status: status, last_error: error === null ? null : storableText(error) }
  await db
    .updateTable('webhook_delivery')
    .set(
      wasHeard
        ? { ...last, state: 'delivered', delivered_at: sql<Date>`clock_timestamp()` }
        : retryInMs === undefined
          ? { ...last, state: 'dead' }
          : {
              ...last,
              due_at: sql<Date>`clock_timestamp() + ${retryInMs}::float8 * interval '1 millisecond'`,
              ...(isUntried && { tries: sql<number>`greatest(tries - 1, 0)` }),
            },
    )
    .where('id', '=', id)
    .where('state', '=', 'waiting')
    .execute()
}

/** A place is an id. */
export async function listDeliveries(
  db: Kysely<Database>,
  scope: Scope,
  page: Page & Period & { readonly webhookId: string; readonly state: Delivery['state'] | undefined },
): Promise<readonly Delivery[]> {
  const { follows, order } = pageBy(sql`id`, page)
  const { rows } = await sql<Delivery>`
    select id, topic, body, state, tries, due_at as "dueAt", last_status as "lastStatus", last_error as "lastError",
      created_at as "createdAt", delivered_at as "deliveredAt"
    from webhook_delivery
    where webhook_id = ${page.webhookId} and project_id = ${scope.projectId}
      and ${follows} and ${within(sql`created_at`, page)}
      and (${page.state ?? null}::text is null or state = ${page.state ?? null})
    order by ${order} limit ${page.limit}`.execute(db)
  return rows
}

/** Sends a delivery once more that was given up, with all its tries. False when it was not. */
export async function revive(trx: Transaction<Database>, scope: Scope, deliveryId: string): Promise<boolean> {
  const row = await trx
    .updateTable('webhook_delivery')
    .set({ state: 'waiting', tries: 0, due_at: sql<Date>`clock_timestamp()` })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', deliveryId)
    .where('state', '=', 'dead')
    .where((eb) =>
      eb.exists(
        eb
          .selectFrom('webhook')
          .select('webhook.id')
          .whereRef('webhook.id', '=', 'webhook_id')
          .where('ended_at', 'is', null),
      ),
    )
    .returning('id')
    .executeTakeFirst()
  return row !== undefined
}
