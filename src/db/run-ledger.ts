import type { TransferView } from '#contracts/api-run.ts'
import type { BalanceClass, Certainty, TransferCode, Use } from '#contracts/names.ts'
import { toAmount } from '#domain/money.ts'
import { sql, type Kysely, type RawBuilder } from 'kysely'
import { transfersOfCalls } from './call-journal.ts'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

interface Row {
  readonly id: string
  readonly seq: bigint
  readonly code: TransferCode
  readonly recordedAt: Date
  readonly debitId: string
  readonly debitKind: string
  readonly debitClass: BalanceClass | null
  readonly creditId: string
  readonly creditKind: string
  readonly creditClass: BalanceClass | null
  readonly currency: string
  readonly amount: bigint
  readonly released: bigint
  readonly pendingId: string | null
  readonly callId: string | null
  readonly attempt: number | null
  readonly certainty: Certainty | null
  readonly use: Use | null
  readonly lotId: string | null
  readonly quoteId: string | null
  readonly balanceAfter: bigint | null
  readonly heldAfter: bigint | null
}

/**
 * A run's movements, in the order in which each account was changed (`seq` is taken under the account's lock). Complete
 * for a run that is over; while it works, a page may miss a movement that is being written.
 */
export async function readLedger(
  db: Kysely<Database>,
  scope: Scope,
  page: { readonly runId: string; readonly after: string | undefined; readonly limit: number },
): Promise<{ readonly transfers: TransferView[]; readonly nextCursor: string | null }> {
  const moved = sql`
    select t.* from transfer t
    where t.envelope_id in (select e.id from envelope e where e.run_id = ${page.runId})
      and t.project_id = ${scope.projectId} and t.seq > ${page.after ?? '0'}::text::bigint`
  const rows = await readMovements(db, moved, page.limit)
  const last = rows.length === page.limit ? rows.at(-1) : undefined
  return { transfers: rows.map(viewOf), nextCursor: last ? last.seq.toString() : null }
}

/** The most that a call has: some for each of its attempts. */
const MOST_OF_CALL = 10_000

/** A call's movements, in order, whichever envelope it is of. */
export async function readCallLedger(
  db: Kysely<Database>,
  scope: Scope,
  callId: string,
): Promise<readonly TransferView[]> {
  const rows = await readMovements(db, transfersOfCalls(scope, [callId]), MOST_OF_CALL)
  return rows.map(viewOf)
}

async function readMovements(db: Kysely<Database>, moved: RawBuilder<unknown>, limit: number): Promise<readonly Row[]> {
  const { rows } = await sql<Row>`
    select t.id, t.seq, t.code, t.recorded_at as "recordedAt", t.currency, t.amount, t.released,
      t.pending_id as "pendingId", t.call_id as "callId", t.attempt, t.certainty, t.use, t.lot_id as "lotId",
      t.quote_id as "quoteId",
      d.id as "debitId", d.kind as "debitKind", d.balance_class as "debitClass",
      c.id as "creditId", c.kind as "creditKind", c.balance_class as "creditClass",
      case when d.kind = 'pocket' then t.debit_balance when c.kind = 'pocket' then t.credit_balance end as "balanceAfter",
      case when d.kind = 'pocket' then t.debit_held when c.kind = 'pocket' then t.credit_held end as "heldAfter"
    from (${moved}) t
    join account d on d.id = t.debit_account
    join account c on c.id = t.credit_account
    order by t.seq limit ${limit}`.execute(db)
  return rows
}

function viewOf(row: Row): TransferView {
  const money = (nano: bigint) => toAmount(nano, row.currency)
  return {
    id: row.id,
    code: row.code,
    recordedAt: row.recordedAt.toISOString(),
    debit: { id: row.debitId, kind: row.debitKind, balanceClass: row.debitClass },
    credit: { id: row.creditId, kind: row.creditKind, balanceClass: row.creditClass },
    amount: money(row.amount),
    released: money(row.released),
    resolves: row.pendingId,
    callId: row.callId,
    attempt: row.attempt,
    certainty: row.certainty,
    use: row.use,
    lotId: row.lotId,
    quoteId: row.quoteId,
    balanceAfter: row.balanceAfter === null ? null : money(row.balanceAfter),
    heldAfter: row.heldAfter === null ? null : money(row.heldAfter),
  }
}
