import type { Page } from '#contracts/api-page.ts'
import { runRequestSchema, type RunRequest } from '#contracts/api-run.ts'
import { storedCapsSchema, type FiringView } from '#contracts/api-schedule.ts'
import { Problem } from '#contracts/codes.ts'
import { SKIP_REASONS, type Firing, type ScheduledTime, type SkipReason } from '#contracts/scheduling.ts'
import { invariant } from '#domain/invariant.ts'
import { formatNano, parseDecimal } from '#domain/money.ts'
import { sql, type Kysely, type Selectable, type Transaction } from 'kysely'
import type { Scope } from './database.ts'
import { newId } from './ids.ts'
import { startRun } from './run-start.ts'
import { endSchedule, isRevoked } from './schedule.ts'
import type { Database } from './schema.ts'
import { pageBy, within, type Period } from './page.ts'

type Trx = Transaction<Database>
type Schedule = Selectable<Database['schedule']>

interface Fire extends ScheduledTime {
  readonly scheduledFor: Date
  readonly nowMs: number
}

/**
 * Makes the run of one time of a schedule (row, envelope, money, start command, event) or writes down why there is none, in
 * one transaction, once. For the platform's own workers: the tenant is the schedule's.
 */
export async function fireSchedule(db: Kysely<Database>, fire: Fire): Promise<Firing> {
  return db.transaction().execute(async (trx) => {
    const schedule = await trx
      .selectFrom('schedule')
      .selectAll()
      .where('id', '=', fire.scheduleId)
      .forNoKeyUpdate()
      .executeTakeFirstOrThrow()
    const known = await knownFiring(trx, fire)
    if (known) return known
    const scope = { projectId: schedule.project_id }
    const firing =
      (await hindranceOf(trx, scope, { schedule, fire })) ?? (await startScheduled(trx, scope, { schedule, fire }))
    await trx
      .insertInto('schedule_firing')
      .values({
        id: newId(fire.nowMs),
        project_id: scope.projectId,
        schedule_id: fire.scheduleId,
        scheduled_for: fire.scheduledFor,
        run_id: firing.kind === 'started' ? firing.runId : null,
        skipped: firing.kind === 'skipped' ? firing.reason : null,
        detail: firing.kind === 'skipped' ? firing.detail : null,
      })
      .execute()
    return firing
  })
}

/** What the time was answered before. */
async function knownFiring(trx: Trx, { scheduleId, scheduledFor }: Fire): Promise<Firing | undefined> {
  const row = await trx
    .selectFrom('schedule_firing')
    .select(['run_id', 'skipped', 'detail'])
    .where('schedule_id', '=', scheduleId)
    .where('scheduled_for', '=', scheduledFor)
    .executeTakeFirst()
  if (!row) return undefined
  if (row.run_id !== null) return { kind: 'started', runId: row.run_id }
  return skipped(skipReasonOf(row.skipped) ?? 'refused', row.detail ?? '')
}

/** Why this time brings no run, money in the wallet aside. */
async function hindranceOf(
  trx: Trx,
  scope: Scope,
  { schedule, fire }: { readonly schedule: Schedule; readonly fire: Fire },
): Promise<Firing | undefined> {
  const { scheduleId, scheduledFor, nowMs, lateAfterMs = Infinity } = fire
  if (schedule.state !== 'active') return skipped('paused', `The schedule is ${schedule.state}.`)
  if (await isRevoked(trx, schedule.api_key_id)) {
    await endSchedule(trx, scope, { scheduleId, state: 'paused', reason: 'key_revoked' })
    return skipped('key_revoked', 'The key that made the schedule is revoked: nobody pays.')
  }
  if (nowMs - scheduledFor.getTime() > lateAfterMs) {
    return skipped('late', `No worker was there for more than ${Math.round(lateAfterMs / 1000)} seconds after it.`)
  }
  const open = await trx
    .selectFrom('run')
    .select(['id', 'state'])
    .where('schedule_id', '=', scheduleId)
    .where('project_id', '=', scope.projectId)
    .where('finished_at', 'is', null)
    .limit(1)
    .executeTakeFirst()
  if (open) return skipped('overlap', `Its run ${open.id} is not over: it is ${open.state}.`)
  return overCap(trx, scope, schedule)
}

/** Whether this month's runs would take more out of the wallet than the schedule may. */
async function overCap(trx: Trx, scope: Scope, schedule: Schedule): Promise<Firing | undefined> {
  const caps = storedCapsSchema.parse(schedule.monthly_cap)
  if (!caps) return undefined
  const spent = await spentThisMonth(trx, scope, schedule)
  const asked = askedOf(requestOf(schedule))
  for (const { balanceClass, currency, nano } of caps) {
    const kind = `${balanceClass} ${currency}`
    const before = spent.get(kind) ?? 0n
    const more = asked.get(kind) ?? 0n
    if (more > 0n && before + more > BigInt(nano)) {
      const [had, wants, cap] = [before, more, BigInt(nano)].map((each) => formatNano(each))
      return skipped('monthly_cap', `This month's runs spent ${had} ${kind}; ${wants} more would exceed ${cap}.`)
    }
  }
  return undefined
}

/** What runs begun this month took out of the wallet, less what went home, by kind of money, in nano. */
async function spentThisMonth(trx: Trx, scope: Scope, schedule: Schedule): Promise<ReadonlyMap<string, bigint>> {
  const { rows } = await sql<{ kind: string; spent: bigint }>`
    select a.balance_class || ' ' || t.currency as kind,
      sum(case when t.debit_account = a.id then t.amount else -t.amount end)::bigint as spent
    from run r
    join envelope e on e.run_id = r.id
    join transfer t on t.envelope_id = e.id and t.code in ('top_up', 'return')
    join account a on a.kind = 'wallet' and a.id in (t.debit_account, t.credit_account)
    where r.schedule_id = ${schedule.id} and r.project_id = ${scope.projectId}
      and r.created_at >= window_start('month', ${schedule.time_zone}, clock_timestamp())
    group by 1`.execute(trx)
  return new Map(rows.map(({ kind, spent }) => [kind, spent]))
}

/** What a run's envelope takes out of the wallet, by kind of money, in nano. */
function askedOf({ envelope }: RunRequest): ReadonlyMap<string, bigint> {
  const asked = new Map<string, bigint>()
  for (const { balanceClass, amount } of envelope.pockets) {
    const parsed = parseDecimal(amount.amount)
    invariant(parsed.ok, 'amounts are checked where requests come in')
    const kind = `${balanceClass} ${amount.currency}`
    asked.set(kind, (asked.get(kind) ?? 0n) + parsed.nano)
  }
  return asked
}

/** A refused start leaves nothing behind but the reason. */
async function startScheduled(
  trx: Trx,
  scope: Scope,
  { schedule, fire }: { readonly schedule: Schedule; readonly fire: Fire },
): Promise<Firing> {
  await sql`savepoint firing`.execute(trx)
  try {
    const run = { request: requestOf(schedule), input: schedule.input, keyId: schedule.api_key_id, nowMs: fire.nowMs }
    const runId = await startRun(trx, scope, run)
    await trx.updateTable('run').set({ schedule_id: schedule.id }).where('id', '=', runId).execute()
    return { kind: 'started', runId }
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    await sql`rollback to savepoint firing`.execute(trx)
    return skipped(skipReasonOf(error.code) ?? 'refused', error.message)
  }
}

function requestOf(schedule: Schedule): RunRequest {
  return runRequestSchema.parse(schedule.request)
}

function skipped(reason: SkipReason, detail: string): Firing {
  return { kind: 'skipped', reason, detail }
}

function skipReasonOf(text: string | null): SkipReason | undefined {
  return SKIP_REASONS.find((reason) => reason === text)
}

/** A place is an id, a period one of the times of the schedule. */
export async function listFirings(
  db: Kysely<Database>,
  scope: Scope,
  page: Page & Period & { readonly scheduleId: string },
): Promise<readonly FiringView[]> {
  const rows = await db
    .selectFrom('schedule_firing')
    .selectAll()
    .where('schedule_id', '=', page.scheduleId)
    .where('project_id', '=', scope.projectId)
    .where(pageBy(sql.ref('id'), page).follows)
    .where(within(sql.ref('scheduled_for'), page))
    .orderBy('id', page.order)
    .limit(page.limit)
    .execute()
  return rows.map((row) => ({
    id: row.id,
    scheduledFor: row.scheduled_for.toISOString(),
    firedAt: row.fired_at.toISOString(),
    runId: row.run_id,
    skipped: skipReasonOf(row.skipped) ?? null,
    detail: row.detail,
  }))
}
