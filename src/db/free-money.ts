import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

/** Deepest tree of runs that is looked up. */
const MOST_HOPS = 16

/**
 * What a pocket could pay now, in nano: its free money and what it may still be given from above, by its parents within its
 * caps, or by its wallet when it is a key's. A look, not a promise: only a hold is one.
 */
export async function freeFor(db: Kysely<Database>, scope: Scope, accountId: string): Promise<bigint> {
  const { rows } = await sql<Hop>`
    /* prepared: free_for */ with recursive up as (
      select a.id, e.parent_id, e.kind, e.wallet_id, a.balance_class, a.currency,
        a.posted_credit - a.posted_debit - a.pending_debit as free, a.cap - a.carved as room, 1 as hop
      from account a join envelope e on e.id = a.envelope_id
      where a.id = ${accountId} and a.project_id = ${scope.projectId}
      union all
      select p.id, e.parent_id, e.kind, e.wallet_id, p.balance_class, p.currency,
        p.posted_credit - p.posted_debit - p.pending_debit, p.cap - p.carved, u.hop + 1
      from up u join envelope e on e.id = u.parent_id
        join account p on p.envelope_id = e.id and p.balance_class = u.balance_class and p.currency = u.currency
      where u.hop < ${MOST_HOPS}
    )
    select free, room, (
        select w.posted_credit - w.posted_debit - w.pending_debit from account w
        where u.kind = 'standing' and w.kind = 'wallet' and w.wallet_id = u.wallet_id and w.project_id = ${scope.projectId}
          and w.balance_class = u.balance_class and w.currency = u.currency
      ) as wallet
    from up u order by hop desc`.execute(db)
  return rows.reduce((above, { free, room, wallet }) => {
    const reachable = above + (wallet ?? 0n)
    return free + (room !== null && room < reachable ? room : reachable)
  }, 0n)
}

/** From the root down to the pocket itself. `room`: what it may still be given, null for no cap. */
interface Hop {
  readonly free: bigint
  readonly room: bigint | null
  readonly wallet: bigint | null
}
