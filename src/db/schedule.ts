import type { Page } from '#contracts/api-page.ts'
import {
  storedCapsSchema,
  type ScheduleChange,
  type ScheduleRequest,
  type ScheduleView,
} from '#contracts/api-schedule.ts'
import { invariant } from '#domain/invariant.ts'
import { parseDecimal, toAmount } from '#domain/money.ts'
import { sql, type Kysely, type Selectable, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { newId } from './ids.ts'
import { json } from './json.ts'
import type { Database } from './schema.ts'
import { pageBy } from './page.ts'

type Trx = Transaction<Database>
/** Of `schedule_name`: a look beforehand would miss a name that is not committed yet. */
const UNIQUE_VIOLATION = '23505'
type Row = Selectable<Database['schedule']>

/** A schedule as it was asked for, with its run checked as one that starts now. */
export interface NewSchedule {
  readonly request: ScheduleRequest
  /** The agent's input with the defaults of its schema filled in. */
  readonly input: unknown
  readonly keyId: string
  readonly nowMs: number
}

/** Undefined when the project has a schedule of this name. Temporal is told of it afterwards. */
export async function createSchedule(trx: Trx, scope: Scope, schedule: NewSchedule): Promise<string | undefined> {
  const { request, input, keyId, nowMs } = schedule
  const row = await trx
    .insertInto('schedule')
    .values({
      id: newId(nowMs),
      project_id: scope.projectId,
      api_key_id: keyId,
      name: request.name,
      every_seconds: request.every ?? null,
      cron: request.cron ?? null,
      time_zone: request.timeZone,
      request: json(request.run),
      input: json(input),
      monthly_cap: request.monthlyCap ? capsOf(request.monthlyCap) : null,
    })
    .onConflict((conflict) => conflict.columns(['project_id', 'name']).where('state', '<>', 'deleted').doNothing())
    .returning('id')
    .executeTakeFirst()
  return row?.id
}

/** A place is an id. */
export async function listSchedules(
  db: Kysely<Database>,
  scope: Scope,
  page: Page & { readonly state: 'active' | 'paused' | undefined },
): Promise<readonly ScheduleView[]> {
  const { state } = page
  const rows = await liveSchedules(db, scope)
    .where(pageBy(sql.ref('id'), page).follows)
    .$if(state !== undefined, (query) => query.where('state', '=', state ?? 'active'))
    .orderBy('id', page.order)
    .limit(page.limit)
    .execute()
  return rows.map(viewOf)
}

/** Undefined when it was removed. */
export async function getSchedule(
  db: Kysely<Database>,
  scope: Scope,
  scheduleId: string,
): Promise<ScheduleView | undefined> {
  const row = await liveSchedules(db, scope).where('id', '=', scheduleId).executeTakeFirst()
  return row && viewOf(row)
}

/** What a change needs to know of a schedule, which stays as it is until the transaction ends. */
export async function lockSchedule(
  trx: Trx,
  scope: Scope,
  scheduleId: string,
): Promise<{ readonly isKeyRevoked: boolean } | undefined> {
  const row = await liveSchedules(trx, scope).where('id', '=', scheduleId).forNoKeyUpdate().executeTakeFirst()
  if (!row) return undefined
  return { isKeyRevoked: await isRevoked(trx, row.api_key_id) }
}

/**
 * `runs` goes with a new run request: its input, and who pays for it from now on. False when the project has another schedule
 * of this name, or is just giving it to one: the transaction is void then.
 */
export async function changeSchedule(
  trx: Trx,
  scope: Scope,
  change: {
    readonly scheduleId: string
    readonly to: ScheduleChange
    readonly runs?: { readonly input: unknown; readonly keyId: string } | undefined
  },
): Promise<boolean> {
  const { scheduleId, to, runs } = change
  const changed = trx
    .updateTable('schedule')
    .set({
      ...(to.name !== undefined && { name: to.name }),
      ...(to.every !== undefined && { every_seconds: to.every, cron: null }),
      ...(to.cron !== undefined && { every_seconds: null, cron: to.cron }),
      ...(to.timeZone !== undefined && { time_zone: to.timeZone }),
      ...(runs && { request: json(to.run), input: json(runs.input), api_key_id: runs.keyId }),
      ...(to.monthlyCap !== undefined && { monthly_cap: to.monthlyCap ? capsOf(to.monthlyCap) : null }),
      ...(to.state !== undefined && { state: to.state, state_reason: null }),
      ...nextVersion,
    })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', scheduleId)
  try {
    await changed.execute()
    return true
  } catch (error) {
    if (isUniqueViolation(error)) return false
    throw error
  }
}

function isUniqueViolation(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === UNIQUE_VIOLATION
}

/** It starts nothing any more, from this commit on; what it did stays. */
export async function endSchedule(
  trx: Trx,
  scope: Scope,
  end: { readonly scheduleId: string; readonly state: 'paused' | 'deleted'; readonly reason: string | null },
): Promise<void> {
  await trx
    .updateTable('schedule')
    .set({ state: end.state, state_reason: end.reason, ...nextVersion })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', end.scheduleId)
    .execute()
}

export async function isRevoked(db: Kysely<Database>, keyId: string): Promise<boolean> {
  const row = await db.selectFrom('api_key').select('revoked_at').where('id', '=', keyId).executeTakeFirst()
  return !row || row.revoked_at !== null
}

const nextVersion = { version: sql<number>`version + 1`, changed_at: sql<Date>`clock_timestamp()` }

function liveSchedules(db: Kysely<Database>, scope: Scope) {
  return db.selectFrom('schedule').selectAll().where('project_id', '=', scope.projectId).where('state', '<>', 'deleted')
}

function capsOf(caps: NonNullable<ScheduleRequest['monthlyCap']>): string {
  return json(
    caps.map(({ balanceClass, amount }) => {
      const parsed = parseDecimal(amount.amount)
      invariant(parsed.ok, 'amounts are checked where requests come in')
      return { balanceClass, currency: amount.currency, nano: parsed.nano }
    }),
  )
}

function viewOf(row: Row): ScheduleView {
  invariant(row.state !== 'deleted', 'what was removed is not shown')
  const caps = storedCapsSchema.parse(row.monthly_cap)
  return {
    id: row.id,
    projectId: row.project_id,
    keyId: row.api_key_id,
    name: row.name,
    every: row.every_seconds,
    cron: row.cron,
    timeZone: row.time_zone,
    run: row.request,
    monthlyCap:
      caps?.map(({ balanceClass, currency, nano }) => ({ balanceClass, amount: toAmount(BigInt(nano), currency) })) ??
      null,
    state: row.state,
    stateReason: row.state_reason,
    isTold: row.told_version === row.version,
    createdAt: row.created_at.toISOString(),
    changedAt: row.changed_at.toISOString(),
    version: row.version,
  }
}
