import type { Page } from '#contracts/api-page.ts'
import type { AuditEventView } from '#contracts/api-audit.ts'
import type { AuditAction } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import { json } from './json.ts'
import type { Database } from './schema.ts'
import { pageBy } from './page.ts'

/** Most of what stands as before or after, in characters: what is larger is kept where it belongs, and only named here. */
const MAX_LENGTH = 65_536
/** Never written, wherever they stand. */
const SECRETS: readonly string[] = ['secret', 'hash', 'apiKey']

export interface AuditEvent {
  readonly organisationId: string
  readonly projectId: string | null
  /** Null: the installation itself. */
  readonly keyId: string | null
  readonly action: AuditAction
  readonly target: string | null
  readonly before: unknown
  readonly after: unknown
}

/** Writes down an administrative change, in its transaction. */
export async function writeAudit(trx: Kysely<Database>, event: AuditEvent): Promise<void> {
  await trx
    .insertInto('audit_event')
    .values({
      organisation_id: event.organisationId,
      project_id: event.projectId,
      api_key_id: event.keyId,
      action: event.action,
      target: event.target,
      before: stored(event.before),
      after: stored(event.after),
    })
    .execute()
}

function stored(value: unknown): string | null {
  if (value === null || value === undefined) return null
  const open: unknown = JSON.parse(JSON.stringify(value, (name, part: unknown) => (isSecret(name) ? undefined : part)))
  const text = json(open)
  return text.length > MAX_LENGTH ? json({ omitted: 'too large', length: text.length }) : text
}

function isSecret(name: string): boolean {
  return SECRETS.includes(name)
}

export interface AuditFilter {
  readonly projectId?: string | undefined
  readonly keyId?: string | undefined
  readonly action?: AuditAction | undefined
  readonly target?: string | undefined
  readonly from?: string | undefined
  readonly to?: string | undefined
}

/** What was changed of an organisation; a place is an id. */
export async function listAudit(
  db: Kysely<Database>,
  organisationId: string,
  { filter, page }: { readonly filter: AuditFilter; readonly page: Page },
): Promise<readonly AuditEventView[]> {
  const { projectId = null, keyId = null, action = null, target = null, from = null, to = null } = filter
  const { follows, order } = pageBy(sql`a.id`, page)
  const { rows } = await sql<Omit<AuditEventView, 'at'> & { readonly at: Date }>`
    select a.id, a.at, a.project_id as "projectId", a.api_key_id as "keyId", a.action, a.target, a.before, a.after
    from audit_event a
    where a.organisation_id = ${organisationId}
      and (${projectId}::uuid is null or a.project_id = ${projectId})
      and (${keyId}::uuid is null or a.api_key_id = ${keyId})
      and (${action}::text is null or a.action = ${action})
      and (${target}::text is null or a.target = ${target})
      and (${from}::timestamptz is null or a.at >= ${from})
      and (${to}::timestamptz is null or a.at < ${to})
      and ${follows}
    order by ${order} limit ${page.limit}`.execute(db)
  return rows.map(({ at, ...row }) => ({ ...row, at: at.toISOString() }))
}
