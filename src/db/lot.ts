import type { Page } from '#contracts/api-page.ts'
import { sql, type Kysely } from 'kysely'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'
import { pageBy, within, type Period } from './page.ts'

/** Most lots of one batch: what is left is for the next one, so that wallets are locked for a moment only. */
const MAX_EXPIRING = 200

export interface Lot {
  readonly id: string
  readonly source: string
  readonly priority: number
  readonly currency: string
  readonly expiresAt: Date | null
  /** What of it lies in the wallet, in nano: the rest is in envelopes, spent or expired. */
  readonly free: bigint
  readonly createdAt: Date
}

/** Breaks lots that are due, of any tenant, one batch of them, and says how many. Many at once do no harm. */
export async function expireLots(db: Kysely<Database>): Promise<number> {
  const { rows } = await sql<{ broken: number }>`select expire_lots(${MAX_EXPIRING}) as broken`.execute(db)
  return rows[0]?.broken ?? 0
}

/** A wallet's lots, a place is an id. */
export async function listLots(db: Kysely<Database>, scope: Scope, page: Page & Period): Promise<readonly Lot[]> {
  const query = db
    .selectFrom('lot')
    .innerJoin('account', 'account.id', 'lot.account_id')
    .select(['lot.id', 'lot.source', 'lot.priority', 'account.currency', 'lot.free'])
    .select(['lot.expires_at as expiresAt', 'lot.created_at as createdAt'])
    .where('lot.project_id', '=', scope.projectId)
    .where(pageBy(sql.ref('lot.id'), page).follows)
    .where(within(sql.ref('lot.created_at'), page))
  return query.orderBy('lot.id', page.order).limit(page.limit).execute()
}
