import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

export interface ReversalRequest {
  readonly id: string
  readonly depositId: string
  /** What to do about money that is not there any more: refuse, or let the project owe it. */
  readonly shortfall: 'refuse' | 'owe'
}

export interface ReversalVerdict {
  readonly verdict: 'reversed' | 'already_reversed' | 'unknown_deposit' | 'wallet_short'
  readonly transferId: string | null
  /** What the wallet (of credit: the deposit's lot) had, in nano. */
  readonly taken: bigint
  /** What of the lot had expired: nobody had it, so nobody owes it. */
  readonly expired: bigint
  readonly owed: bigint
}

/** Takes a whole deposit back, once: wallet → outside. Operators only: the caller has checked that. */
export async function reverseDeposit(
  db: Kysely<Database>,
  scope: Scope,
  request: ReversalRequest,
): Promise<ReversalVerdict> {
  const { rows } = await sql<ReversalVerdict>`
    select verdict, transfer_id as "transferId", taken, expired, owed
    from reverse_deposit(${scope.projectId}, ${request.depositId}, ${request.id}, ${request.shortfall === 'owe'})`.execute(
    db,
  )
  const [row] = rows
  if (!row) throw new Error('reverse_deposit returned no row')
  return row
}
