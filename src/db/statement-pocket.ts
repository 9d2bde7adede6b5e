import type { BalanceClass } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'
import type { StatementPeriod } from './statement-period.ts'

/** A pocket with the movements that a period has of it: `(openingSeq, closingSeq]`. */
export interface PocketWindow {
  readonly accountId: string
  readonly envelopeId: string
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly opening: bigint
  readonly closing: bigint
  readonly heldAtClosing: bigint
  readonly openingSeq: bigint
  readonly closingSeq: bigint
}

/** The pockets of a few envelopes. */
export async function pocketWindows(
  db: Kysely<Database>,
  { ids, period }: { readonly ids: readonly string[]; readonly period: StatementPeriod },
): Promise<readonly PocketWindow[]> {
  const { rows } = await sql<PocketWindow>`
    select a.id as "accountId", a.envelope_id as "envelopeId", a.balance_class as "balanceClass", a.currency,
      coalesce(o.posted, 0) as opening, coalesce(o.seq, 0) as "openingSeq",
      coalesce(c.posted, 0) as closing, coalesce(c.held, 0) as "heldAtClosing", coalesce(c.seq, 0) as "closingSeq"
    from account a
    left join lateral account_at(a.id, ${period.openedAt}::timestamptz) o on true
    left join lateral account_at(a.id, ${period.closedAt}::timestamptz) c on true
    where a.kind = 'pocket' and a.envelope_id = any(${ids}::uuid[])
    order by a.balance_class desc, a.currency`.execute(db)
  return rows
}

/** The pockets of a batch as a table `w (id, opening, closing)`. */
export function windowTable(pockets: readonly PocketWindow[]) {
  return sql`unnest(
    ${pockets.map((pocket) => pocket.accountId)}::uuid[],
    ${pockets.map((pocket) => pocket.openingSeq.toString())}::bigint[],
    ${pockets.map((pocket) => pocket.closingSeq.toString())}::bigint[]
  ) as w(id, opening, closing)`
}
