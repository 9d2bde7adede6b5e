import type { RunLimits } from '#contracts/run-options.ts'
import { Problem } from '#contracts/codes.ts'
import type { LimitMeasure } from '#contracts/names.ts'
import { invariant } from '#domain/invariant.ts'
import { parseDecimal, toAmount, type Nano } from '#domain/money.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import { balancesOf } from './call.ts'
import type { Scope } from './database.ts'
import { newId } from './ids.ts'
import { limitsSeen, retireLimit, setLimit, type Limit } from './limit.ts'
import type { Database } from './schema.ts'

type Trx = Transaction<Database>

/** Longer windows are budgets: a run would stop for them. In shorter ones its calls wait for the next. */
const BUDGETS: readonly Limit['period'][] = ['life', 'day', 'week', 'month']

interface Cap {
  readonly measure: LimitMeasure
  readonly currency: string | null
  readonly cap: bigint
}

/** Limits of the run itself and of its steps, for life: they bind the calls of its children too. */
export async function setRunLimits(
  trx: Trx,
  scope: Scope,
  run: { readonly runId: string; readonly keyId: string; readonly limits: RunLimits; readonly nowMs: number },
): Promise<void> {
  const { runId, limits, nowMs } = run
  const caller = { keyId: run.keyId, organisationId: await organisationOf(trx, scope), projectId: scope.projectId }
  const life = { subjectId: runId, period: 'life', timeZone: 'UTC' } as const
  const ofRun = capsOf(limits).map((cap) => ({ scope: 'run', step: null, ...cap }) as const)
  const ofSteps = (limits.steps ?? []).flatMap((step) =>
    capsOf(step).map((cap) => ({ scope: 'step', step: step.step, ...cap }) as const),
  )
  for (const limit of [...ofRun, ...ofSteps]) {
    const verdict = await setLimit(trx, caller, { id: newId(nowMs), ...life, ...limit })
    invariant(verdict === 'set', `a limit that the schema has checked is ${verdict}`)
  }
}

/** The limits of a run that is over bind nothing any more, and are not listed. Safe to repeat. */
export async function retireRunLimits(db: Kysely<Database>, scope: Scope, runId: string): Promise<void> {
  const rows = await db
    .selectFrom('usage_limit')
    .select(['id', 'organisation_id', 'set_by'])
    .where('subject_id', '=', runId)
    .where('project_id', '=', scope.projectId)
    .where('retired_at', 'is', null)
    .execute()
  for (const { id, organisation_id: organisationId, set_by: keyId } of rows) {
    if (keyId !== null) await retireLimit(db, { keyId, organisationId, projectId: scope.projectId }, id)
  }
}

function capsOf(limits: Pick<NonNullable<RunLimits['steps']>[number], 'money' | 'tokens' | 'calls'>): readonly Cap[] {
  const { money, tokens, calls } = limits
  return [
    ...(money ? [{ measure: 'money', currency: money.currency, cap: nanoOf(money.amount) } as const] : []),
    ...(tokens === undefined ? [] : [{ measure: 'tokens', currency: null, cap: BigInt(tokens) } as const]),
    ...(calls === undefined ? [] : [{ measure: 'calls', currency: null, cap: BigInt(calls) } as const]),
  ]
}

function nanoOf(amount: string): Nano {
  const parsed = parseDecimal(amount)
  invariant(parsed.ok, 'amounts are checked where requests come in')
  return parsed.nano
}

type Room = Limit & { readonly asked: bigint }

/**
 * Whether the limits on the organisation, the project and the key leave room for what an envelope was just funded with.
 * Only a look: what they lend is decided call by call.
 *
 * @throws Problem `limit_short`
 */
export async function checkLimitRoom(trx: Trx, scope: Scope, envelopeId: string): Promise<void> {
  const organisationId = await organisationOf(trx, scope)
  const { rows } = await sql<Limit>`
    ${limitsSeen({ organisationId, projectId: null })}
      and u.retired_at is null and u.step is null and u.subject_id = any((
        select array_remove(e.subjects, e.run_id) from envelope e where e.id = ${envelopeId}
      )::uuid[])
      and u.period = any(${[...BUDGETS]}::text[])
    order by u.id`.execute(trx)
  const balances = await balancesOf(trx, scope, envelopeId)
  for (const limit of rows) {
    const asked = balances.reduce((sum, each) => (each.currency === limit.currency ? sum + each.balance : sum), 0n)
    // A limit on another currency binds no call of this envelope.
    if (limit.currency !== null && asked === 0n) continue
    const needed = limit.period === 'life' && limit.measure === 'money' ? asked : 1n
    if (freeOf(limit) < needed) throw limitShort({ ...limit, asked })
  }
}

function freeOf({ cap, spent, held }: Limit): bigint {
  return cap > spent + held ? cap - spent - held : 0n
}

function limitShort(limit: Room): Problem {
  const { id, scope, measure, period, currency, endsAt } = limit
  const quantity = (value: bigint) => (currency === null ? Number(value) : toAmount(value, currency))
  const free = freeOf(limit)
  const left = currency === null ? `${free} ${measure}` : `${toAmount(free, currency).amount} ${currency}`
  const resetsAt = endsAt?.toISOString() ?? null
  const wait = resetsAt === null ? 'Ask for less' : `Wait until ${resetsAt}`
  return new Problem('limit_short', `The ${scope} limit on ${measure} (${period}) leaves ${left}.`, {
    remedy: `${wait}, or have the limit ${id} raised.`,
    extra: {
      limitId: id,
      free: quantity(free),
      resetsAt,
      ...(measure === 'money' && { needed: quantity(limit.asked) }),
    },
  })
}

async function organisationOf(trx: Trx, scope: Scope): Promise<string> {
  const row = await trx
    .selectFrom('project')
    .select('organisation_id')
    .where('id', '=', scope.projectId)
    .executeTakeFirstOrThrow()
  return row.organisation_id
}
