import { sql, type Kysely, type RawBuilder } from 'kysely'
import type { OpenAttempt } from './call.ts'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

/** Attempts of one read. */
const PAGE = 500

const FIRST_CALL = '00000000-0000-0000-0000-000000000000'

/** An attempt that is not resolved, of whatever tenant. */
export interface Orphan extends OpenAttempt {
  readonly projectId: string
  readonly currency: string
}

/**
 * Attempts not resolved that are this process's own or a dead one's, of any tenant: for the sweep. In pages, each read as
 * it is asked for: what cannot be resolved is passed by, however much of it there is.
 */
export function attemptsOfMeAndTheDead(
  db: Kysely<Database>,
  instanceId: string,
): AsyncGenerator<readonly Orphan[], void> {
  return pagesOf(db, {
    which: sql<boolean>`a.instance_id = ${instanceId} or ${isDead}`,
    ownerAlive: sql<boolean>`a.instance_id = ${instanceId}`,
  })
}

/** Attempts not resolved whose process is dead, of one organisation, in pages. */
export function attemptsOfTheDead(
  db: Kysely<Database>,
  organisationId: string,
): AsyncGenerator<readonly Orphan[], void> {
  return pagesOf(db, {
    which: sql<boolean>`o.organisation_id = ${organisationId} and ${isDead}`,
    ownerAlive: sql<boolean>`false`,
  })
}

const isDead = sql<boolean>`not exists (
  select from instance i where i.id = a.instance_id and i.lease_until > clock_timestamp())`

/** By call, of which each has one open attempt: ids begin with the time of their run, so the oldest come first. */
async function* pagesOf(
  db: Kysely<Database>,
  { which, ownerAlive }: { readonly which: RawBuilder<boolean>; readonly ownerAlive: RawBuilder<boolean> },
): AsyncGenerator<readonly Orphan[], void> {
  let after = FIRST_CALL
  for (;;) {
    const { rows } = await sql<Orphan>`
      select a.project_id as "projectId", a.call_id as "callId", a.number, a.run_id as "runId",
        a.account_id as "accountId", a.hold_id as "holdId", a.held, a.instance_id as "instanceId", a.owner,
        ${ownerAlive} as "ownerAlive", a.detail->>'providerRequestId' as "requestId", p.currency
      from attempt a join account p on p.id = a.account_id join project o on o.id = a.project_id
      where a.state = 'sent' and a.call_id > ${after} and (${which})
      order by a.call_id limit ${PAGE}`.execute(db)
    const last = rows.at(-1)
    if (!last) return
    after = last.callId
    yield rows
  }
}

/** An attempt as it is found by its name. */
export interface NamedAttempt {
  readonly runId: string | null
  readonly accountId: string
  readonly holdId: string
}

export async function namedAttempt(
  db: Kysely<Database>,
  scope: Scope,
  key: { readonly callId: string; readonly number: number },
): Promise<NamedAttempt | undefined> {
  const { rows } = await sql<NamedAttempt>`
    select run_id as "runId", account_id as "accountId", hold_id as "holdId"
    from attempt where call_id = ${key.callId} and number = ${key.number} and project_id = ${scope.projectId}`.execute(
    db,
  )
  return rows[0]
}
