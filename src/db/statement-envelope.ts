import type { TransferCode } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'
import type { StatementPeriod } from './statement-period.ts'
import { pocketWindows, windowTable, type PocketWindow } from './statement-pocket.ts'
import { spendsOf, type StatementSpend } from './statement-spend.ts'

/** An envelope in a statement, with what its pockets had, got, gave and spent. Money in nano. */
export interface StatementEnvelope {
  readonly envelopeId: string
  readonly kind: string
  readonly parentId: string | null
  readonly runId: string | null
  readonly agent: string | null
  readonly model: string | null
  readonly apiKeyId: string | null
  readonly apiKeyName: string | null
  readonly createdAt: Date
  readonly closedAt: Date | null
  readonly pockets: readonly StatementPocket[]
}

export interface StatementPocket extends PocketWindow {
  /** What came and went other than by calls; negative: out of the pocket. */
  readonly changes: readonly { readonly code: TransferCode; readonly amount: bigint; readonly count: number }[]
  readonly spends: readonly StatementSpend[]
}

/** Envelopes of one read: each costs a few milliseconds, and no snapshot is held for more than a second. */
const ENVELOPES_PER_READ = 100

/**
 * The envelopes that were open in a period, and those that a correction reached after their end: the attempt's own, and
 * those above it, which its money went through. In batches.
 */
export async function* envelopesOf(
  db: Kysely<Database>,
  scope: Scope,
  period: StatementPeriod,
): AsyncGenerator<readonly StatementEnvelope[]> {
  const ids = await envelopeIds(db, scope, period)
  for (let start = 0; start < ids.length; start += ENVELOPES_PER_READ) {
    yield await readEnvelopes(db, { ids: ids.slice(start, start + ENVELOPES_PER_READ), period })
  }
}

async function envelopeIds(db: Kysely<Database>, scope: Scope, period: StatementPeriod): Promise<readonly string[]> {
  const { rows } = await sql<{ readonly id: string }>`
    with recursive corrected(id) as (
      select t.envelope_id from transfer t
      where t.project_id = ${scope.projectId} and t.code = 'correction'
        and t.code in ('overage', 'debt_payment', 'correction')
        and t.recorded_at >= ${period.from}::timestamptz and t.recorded_at <= ${period.closedAt}::timestamptz
      union
      select e.parent_id from corrected c join envelope e on e.id = c.id where e.parent_id is not null
    )
    select e.id from envelope e
    where e.project_id = ${scope.projectId} and e.created_at <= ${period.closedAt}::timestamptz and (
      e.closed_at is null or e.closed_at >= ${period.from}::timestamptz
      or e.id in (select id from corrected))
    order by e.created_at, e.id`.execute(db)
  return rows.map(({ id }) => id)
}

interface Batch {
  readonly ids: readonly string[]
  readonly period: StatementPeriod
}

async function readEnvelopes(db: Kysely<Database>, batch: Batch): Promise<readonly StatementEnvelope[]> {
  const envelopes = await envelopeRows(db, batch.ids)
  const pockets = await pocketWindows(db, batch)
  const changes = Map.groupBy(await changeRows(db, pockets), ({ accountId }) => accountId)
  const spends = Map.groupBy(await spendsOf(db, { ...batch, pockets }), ({ accountId }) => accountId)
  const pocketsOf = Map.groupBy(pockets, ({ envelopeId }) => envelopeId)
  return envelopes.map((envelope) => ({
    ...envelope,
    pockets: (pocketsOf.get(envelope.envelopeId) ?? []).map((pocket) => ({
      ...pocket,
      changes: changes.get(pocket.accountId) ?? [],
      spends: spends.get(pocket.accountId) ?? [],
    })),
  }))
}

async function envelopeRows(db: Kysely<Database>, ids: readonly string[]) {
  const { rows } = await sql<Omit<StatementEnvelope, 'pockets'>>`
    select e.id as "envelopeId", e.kind, e.parent_id as "parentId", e.run_id as "runId", r.agent, r.model,
      k.id as "apiKeyId", k.name as "apiKeyName", e.created_at as "createdAt", e.closed_at as "closedAt"
    from envelope e
    left join run r on r.id = e.run_id
    left join api_key k on k.id = coalesce(e.api_key_id, r.api_key_id)
    where e.id = any(${ids}::uuid[]) order by e.created_at, e.id`.execute(db)
  return rows
}

interface ChangeRow {
  readonly accountId: string
  readonly code: TransferCode
  readonly amount: bigint
  readonly count: number
}

/** Fundings, carvings and returns; an account's own index leads to each. */
async function changeRows(db: Kysely<Database>, pockets: readonly PocketWindow[]): Promise<readonly ChangeRow[]> {
  const { rows } = await sql<ChangeRow>`
    select w.id as "accountId", t.code, sum(t.amount)::bigint as amount, count(*)::integer as count
    from ${windowTable(pockets)}
    cross join lateral (
      select t.code, t.amount from transfer t
      where t.credit_account = w.id and t.seq > w.opening and t.seq <= w.closing and t.code in ('top_up', 'return')
        and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve')
      union all
      select t.code, -t.amount from transfer t
      where t.debit_account = w.id and t.seq > w.opening and t.seq <= w.closing and t.code in ('top_up', 'return')
        and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve')
      union all
      select t.code, t.amount from transfer t
      where t.credit_account = w.id and t.seq > w.opening and t.seq <= w.closing and t.code = 'carve'
      union all
      select t.code, -t.amount from transfer t
      where t.debit_account = w.id and t.seq > w.opening and t.seq <= w.closing and t.code = 'carve'
    ) t
    group by w.id, t.code, t.amount < 0 order by w.id, t.code desc, t.amount < 0`.execute(db)
  return rows
}
