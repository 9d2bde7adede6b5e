import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

/** What a refused hold was measured against: money in nano of its currency, else tokens or calls. */
export interface RefusedAgainst {
  readonly measure: 'money' | 'tokens' | 'calls'
  /** Used up, and out on holds, of what bound it: a limit's window, or else its pocket. */
  readonly spent: bigint
  readonly held: bigint
  readonly resetsAt: Date | null
  /** It would not fit into a limit of which nothing is used either. */
  readonly neverFits: boolean
}

/** What bound a hold when it was refused: of a limit as it stood then, of a pocket as it stands now. */
export async function refusedAgainst(
  db: Kysely<Database>,
  scope: Scope,
  refusalId: string,
): Promise<RefusedAgainst | undefined> {
  const { rows } = await sql<RefusedAgainst>`
    select r.measure, r.resets_at as "resetsAt", r.bound = 'limit' and r.asked > r.cap as "neverFits",
      case when r.bound = 'limit' then coalesce(r.held, 0) else a.pending_debit end as held,
      case when r.bound = 'limit' then coalesce(r.spent, 0) else coalesce((
        select sum(t.amount) from transfer t where t.debit_account = a.id and t.code in ('capture', 'overage', 'correction')
      ), 0)::bigint end as spent
    from refusal r join account a on a.id = r.account_id
    where r.hold_id = ${refusalId} and r.project_id = ${scope.projectId}`.execute(db)
  return rows[0]
}
