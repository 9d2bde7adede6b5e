import { sql, type Kysely } from 'kysely'
import type { Database } from './schema.ts'

/** Most leases, or windows, of one turn: well within the five seconds that a transaction has. */
const MOST = 500

/** Folds leases that lend nothing any more into their windows. Returns how many; many at once do no harm. */
export async function foldLeases(db: Kysely<Database>): Promise<number> {
  const { rows } = await sql<{ folded: number }>`select fold_leases(${MOST}) as folded`.execute(db)
  return rows[0]?.folded ?? 0
}

/** Recalls what is idle of windows that an attempt has overdrawn. Returns how many; many at once do no harm. */
export async function recallLeases(db: Kysely<Database>): Promise<number> {
  const { rows } = await sql<{ recalled: number }>`select recall_leases(${MOST}) as recalled`.execute(db)
  return rows[0]?.recalled ?? 0
}
