import { connectDatabase } from '#db/database.ts'
import { freeFor } from '#db/free-money.ts'
import type { Database } from '#db/schema.ts'
import { sql, type Kysely } from 'kysely'
import { expect, onTestFinished, test } from 'vitest'
import { createLedgerWorld, type LedgerWorld, type Purse } from '../support/envelopes.ts'

const CHILDREN = 100
/** Rows of one table that a look up two hops may read, however many stand beside them. */
const FEW = 10

test('what a pocket can pay is looked up by keys, in a plan from when there was little', async () => {
  const world = await createLedgerWorld()
  const [hot, admin] = [world.database.appUrl, world.database.adminUrl].map((url) => {
    const db = connectDatabase({ url, maxConnections: 1 })
    onTestFinished(() => db.destroy())
    return db
  })
  if (!hot || !admin) throw new Error('two were connected')
  const root = await world.openRoot(1_000n)
  const child = await world.openBelow(root, { amount: 10n })
  // Few rows, counted: whatever is planned now is planned for tables of one page.
  await sql`analyze`.execute(admin)
  await lookUp(hot, world, { purse: child, expected: 1_000n })
  for (let count = 1; count < CHILDREN; count += 1) await world.openBelow(root, { amount: 5n })
  const read = await lookUp(hot, world, { purse: child, expected: 505n })
  for (const table of ['account', 'envelope']) expect(read.get(table)).toBeLessThan(FEW)
})

/** Returns how many rows of each table were read. */
async function lookUp(
  db: Kysely<Database>,
  world: LedgerWorld,
  { purse, expected }: { readonly purse: Purse; readonly expected: bigint },
): Promise<Map<string, number>> {
  return db.transaction().execute(async (trx) => {
    expect(await freeFor(trx, world.scope, purse.pocket.accountId)).toBe(expected)
    const { rows } = await sql<{ name: string; read: number }>`
      select relname as name, (seq_tup_read + coalesce(idx_tup_fetch, 0))::integer as read
      from pg_stat_xact_user_tables`.execute(trx)
    return new Map(rows.map(({ name, read }) => [name, read]))
  })
}
