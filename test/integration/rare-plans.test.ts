import { connectDatabase } from '#db/database.ts'
import { correct } from '#db/correction.ts'
import { freeFor } from '#db/free-money.ts'
import { settle } from '#db/hold.ts'
import { closeEnvelope } from '#db/ledger.ts'
import type { Database } from '#db/schema.ts'
import { sql, type Kysely } from 'kysely'
import { expect, onTestFinished, test } from 'vitest'
import { createLedgerWorld, type LedgerWorld, type Purse } from '../support/envelopes.ts'
import { truthOf } from '../support/late-truth.ts'
import { resolution } from '../support/open-attempt.ts'

const CHILDREN = 100
/** Rows of one table that a look up two hops may read. */
const FEWER = 10
/** Rows of one table that two overages, closings and corrections may read, however many stand beside them. */
const FEW = 60

test('what a child spent too much is fetched, closed and corrected by what is its own, however much there is', async () => {
  const { world, hot, admin } = await usePlanned()
  const root = await world.openRoot(1_000_000n)
  for (let child = 0; child < 3; child += 1) await spendTooMuch(world.db, world, root)
  // Few rows, counted: whatever is planned now is planned for tables of one page.
  await sql`analyze`.execute(admin)
  await spendTooMuch(hot, world, root)
  for (let child = 0; child < CHILDREN; child += 1) await spendTooMuch(world.db, world, root)
  const read = await spendTooMuch(hot, world, root)
  for (const table of ['transfer', 'envelope', 'attempt', 'call']) expect(read.get(table) ?? 0).toBeLessThan(FEW)
})

test('what a pocket can pay is looked up by keys, in a plan from when there was little', async () => {
  const { world, hot, admin } = await usePlanned()
  const root = await world.openRoot(1_000n)
  const child = await world.openBelow(root, { amount: 10n })
  await sql`analyze`.execute(admin)
  const lookUp = (reach: bigint) =>
    hot.transaction().execute(async (trx) => {
      expect(await freeFor(trx, world.scope, child.pocket.accountId)).toBe(reach)
      return rowsRead(trx)
    })
  await lookUp(1_000n)
  for (let count = 1; count < CHILDREN; count += 1) await world.openBelow(root, { amount: 5n })
  const read = await lookUp(505n)
  for (const table of ['account', 'envelope']) expect(read.get(table)).toBeLessThan(FEWER)
})

/** A world with one connection whose plans stay, and one that counts the rows of its tables. */
async function usePlanned() {
  const world = await createLedgerWorld()
  const [hot, admin] = [world.database.appUrl, world.database.adminUrl].map((url) => {
    const db = connectDatabase({ url, maxConnections: 1 })
    onTestFinished(() => db.destroy())
    return db
  })
  if (!hot || !admin) throw new Error('two were connected')
  return { world, hot, admin }
}

/** How many rows of each table a transaction has read so far. */
async function rowsRead(trx: Kysely<Database>): Promise<Map<string, number>> {
  const { rows } = await sql<{ name: string; read: number }>`
    select relname as name, (seq_tup_read + coalesce(idx_tup_fetch, 0))::integer as read
    from pg_stat_xact_user_tables`.execute(trx)
  return new Map(rows.map(({ name, read }) => [name, read]))
}

/** An overage of a new child, its closing and late truth about it. Returns how many rows of each table that read. */
async function spendTooMuch(db: Kysely<Database>, world: LedgerWorld, root: Purse): Promise<Map<string, number>> {
  const child = await world.openBelow(root, { amount: 10n })
  const item = await world.hold(child, 10n)
  const { runId, callId, attempt: number, holdId } = item
  return db.transaction().execute(async (trx) => {
    const settlement = resolution({ runId, callId, number, holdId }, 25n)
    expect((await settle(trx, child.pocket, { item: settlement, mode: 'owner' })).verdict).toBe('settled')
    const { envelopeId } = child
    expect(await closeEnvelope(trx, world.scope, { envelopeId, reason: 'test' })).toBe('closed')
    expect(await correct(trx, child.pocket, truthOf(item, 40n))).toBe('corrected')
    return rowsRead(trx)
  })
}
