import { closeStanding, closeTree, emptyIdleStanding } from '#db/envelope.ts'
import { newId } from '#db/ids.ts'
import type { ReserveItem } from '#db/hold.ts'
import { closeEnvelope, setGate, topUpEnvelope } from '#db/ledger.ts'
import { sql } from 'kysely'
import pg from 'pg'
import { expect, test } from 'vitest'
import { createLedgerWorld, type LedgerWorld, type Purse } from '../support/envelopes.ts'
import { tell } from '../support/late-truth.ts'
import { expectVerified } from '../support/open-attempt.ts'

const CONNECTIONS = 16
const STEPS = 60
const AT_ONCE = { signal: AbortSignal.abort() }

interface Open {
  readonly purse: Purse
  readonly item: ReserveItem
}

interface Storm {
  readonly world: LedgerWorld
  readonly roots: readonly Purse[]
  readonly purses: Purse[]
  readonly keys: readonly string[]
  readonly open: Open[]
  readonly settled: Open[]
  readonly verdicts: Map<string, number>
}

/** Numbers that look random and are the same in every run (Lehmer's generator). */
function dice(seed: number): (sides: number) => number {
  let state = seed
  return (sides) => {
    state = (state * 48_271) % 2_147_483_647
    return state % sides
  }
}

function note(storm: Storm, verdict: string): string {
  storm.verdicts.set(verdict, (storm.verdicts.get(verdict) ?? 0) + 1)
  return verdict
}

async function call(storm: Storm, purse: Purse, amount: bigint): Promise<void> {
  const { item, verdict } = await storm.world.get(purse, amount)
  if (note(storm, verdict) === 'granted') storm.open.push({ purse, item })
}

async function batch(storm: Storm, purses: readonly Purse[]): Promise<void> {
  const { world } = storm
  await Promise.all(
    purses.map(async (purse) => {
      const item = await world.itemOf(purse, 3n)
      const { verdict } = await world.queue.reserve(purse.pocket, item, AT_ONCE)
      if (note(storm, verdict) === 'granted') storm.open.push({ purse, item })
    }),
  )
}

/** Resolves one, beyond its hold as well, or tells late truth about one that is resolved, whatever was closed since. */
async function settleOne({ world, open, settled }: Storm, roll: (sides: number) => number): Promise<void> {
  const [held] = open.splice(roll(open.length + 1), 1)
  const used = BigInt(roll(41))
  if (held) {
    await world.settle(held.purse, held.item, used > held.item.amount && roll(2) === 0 ? null : used)
    settled.push(held)
  }
  const late = settled[roll(settled.length + 1)]
  if (late && roll(3) === 0) expect(await tell(world, late.purse, late.item, used)).toBe('corrected')
}

async function step(storm: Storm, roll: (sides: number) => number): Promise<void> {
  const { world, roots, purses, keys } = storm
  const { db, scope } = world
  const pick = <Each>(from: readonly Each[]): Each => {
    const each = from[roll(from.length)]
    if (each === undefined) throw new Error('nothing to pick from')
    return each
  }
  const amount = BigInt(1 + roll(40))
  switch (roll(14)) {
    case 0:
    case 1:
    case 2:
      return call(storm, pick(purses), amount)
    case 3:
    case 4:
      return call(storm, await world.standing(pick(keys), { currency: 'EUR' }), amount)
    case 5: {
      const child = { amount: BigInt(roll(20)), cap: roll(2) === 0 ? null : 60n } as const
      const opened = await world.openBelow(pick(purses), child).catch((error: unknown) => refusedOnly(error))
      if (opened) purses.push(opened)
      return
    }
    case 6: {
      const { envelopeId } = pick(purses.slice(roots.length).concat(roots))
      if (roots.some((root) => root.envelopeId === envelopeId)) return
      await closeEnvelope(db, scope, { envelopeId, reason: 'test' })
      return
    }
    case 7: {
      const { envelopeId } = pick(purses)
      await setGate(db, scope, { envelopeId, gate: 'frozen', reason: 'test' })
      await setGate(db, scope, { envelopeId, gate: 'open', reason: 'test' })
      return
    }
    case 8: {
      const fundings = [
        { id: newId(Date.now()), balanceClass: 'direct', currency: pick(['USD', 'EUR']), amount } as const,
      ]
      const { envelopeId } = pick(roots)
      await db.transaction().execute(async (trx) => {
        const refusal = await topUpEnvelope(trx, scope, { envelopeId, fundings })
        expect(refusal?.reason ?? 'wallet_short').toBe('wallet_short')
        await setGate(trx, scope, { envelopeId, gate: 'open', reason: 'test' })
      })
      return
    }
    case 9:
      await emptyIdleStanding(db, '0 seconds')
      return batch(storm, [pick(purses), pick(purses), await world.standing(pick(keys), { currency: 'EUR' })])
    default:
      return settleOne(storm, roll)
  }
}

/** A child may be refused; everything else is a bug. */
function refusedOnly(error: unknown): undefined {
  if (error instanceof Error && error.message.startsWith('the child was refused')) return undefined
  throw error
}

async function guardedMoney(world: LedgerWorld): Promise<bigint> {
  const { rows } = await sql<{ money: bigint }>`
    select (coalesce(sum(posted_credit - posted_debit), 0) + (
      select coalesce(sum(case when debit_version is null then -amount else amount end), 0) from transfer
      where code in ('capture', 'overage', 'correction') and coalesce(debit_version, credit_version) is not null
    ))::bigint as money
    from account where kind in ('wallet', 'pocket')`.execute(world.db)
  return rows[0]?.money ?? -1n
}

async function deadlocks(world: LedgerWorld): Promise<string> {
  const admin = new pg.Client(world.database.adminUrl)
  await admin.connect()
  try {
    const { rows } = await admin.query<{ deadlocks: string }>(
      'select deadlocks::text from pg_stat_database where datname = current_database()',
    )
    return rows[0]?.deadlocks ?? 'unknown'
  } finally {
    await admin.end()
  }
}

test('16 connections hold, settle, correct, carve, fill, empty, recall, freeze and close at once: nothing deadlocks and nothing is lost', async () => {
  const world = await createLedgerWorld({ connections: CONNECTIONS })
  await world.deposit('EUR', 300n)
  const roots = [await world.openRoot(400n), await world.openRoot(400n)]
  const keys = [world.keyId, await world.makeKey(), await world.makeKey(), await world.makeKey()]
  const storm: Storm = { world, roots, purses: [...roots], keys, open: [], settled: [], verdicts: new Map() }
  const [moneyBefore, deadlocksBefore] = [await guardedMoney(world), await deadlocks(world)]

  await Promise.all(
    Array.from({ length: CONNECTIONS }, async (_, worker) => {
      const roll = dice(7_919 * (worker + 1))
      await call(storm, await world.standing(world.keyId, { currency: 'EUR' }), 10_000n)
      for (let done = 0; done < STEPS; done += 1) await step(storm, roll)
    }),
  )

  expect([...storm.verdicts.keys()]).toEqual(expect.arrayContaining(['granted', 'busy', 'exhausted']))
  expect(await guardedMoney(world)).toBe(moneyBefore)
  await expectVerified(world)
  await Promise.all(storm.open.map(({ purse, item }) => world.settle(purse, item, null)))
  const { db, scope } = world
  await Promise.all([
    ...roots.map(async ({ envelopeId }) => {
      expect(await closeTree(db, scope, { envelopeId, reason: 'test' })).toBe('closed')
    }),
    ...keys.map(async (key) => {
      expect(await db.transaction().execute((trx) => closeStanding(trx, scope, key))).toBe('closed')
    }),
  ])
  const { rows } = await sql`
    select id from account where kind = 'pocket' and (gate <> 'closed' or posted_credit <> posted_debit)
    union all select hold_id from refusal where free >= asked`.execute(db)
  expect(rows).toEqual([])
  expect(await guardedMoney(world)).toBe(moneyBefore)
  await expectVerified(world)
  await db.destroy()
  expect(await deadlocks(world)).toBe(deadlocksBefore)
}, 90_000)
