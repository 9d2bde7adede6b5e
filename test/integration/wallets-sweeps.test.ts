import { closeRevokedStanding, emptyIdleStanding } from '#db/envelope.ts'
import { foldLeases } from '#db/lease.ts'
import { retireLimit } from '#db/limit.ts'
import { expireLots } from '#db/lot.ts'
import { newId } from '#db/ids.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { createLedgerWorld, type LedgerWorld, type Purse } from '../support/envelopes.ts'
import { revokeOwnKey } from '../support/keys.ts'
import { createLimitWorld } from '../support/limits.ts'
import { startProcess } from '../support/storm.ts'
import { asAdmin, freeOf, grantLot, letExpire } from '../support/wallets.ts'
import { neighbourOf } from '../support/world.ts'

/** The smallest turn of a sweep: whatever is in front is in the way, if anything can be. */
const ONE = 1

/** Sets the clock of some accounts an hour ahead: nothing moves them meanwhile. */
async function setAhead(world: LedgerWorld, where: string): Promise<void> {
  await asAdmin(world, `update account set moved_at = clock_timestamp() + interval '1 hour' where ${where}`)
}

async function expireAtMost(world: Pick<LedgerWorld, 'db'>, limit: number): Promise<number> {
  const { rows } = await sql<{ broken: number }>`select expire_lots(${limit}) as broken`.execute(world.db)
  return rows[0]?.broken ?? -1
}

test('lots expire though wallets in front of theirs are locked, ahead of the clock or wrong', async () => {
  const world = await createLedgerWorld()
  const tenants = [world, await neighbourOf(world), await neighbourOf(world), await neighbourOf(world)]
  const lots: string[] = []
  for (const tenant of tenants) lots.push((await grantLot(tenant, 10n)).lotId)
  for (const lotId of lots) await letExpire(world, lotId)
  const accountOf = (place: number) => `id = (select account_id from lot where id = '${lots[place]}')`
  await setAhead(world, accountOf(0))
  await asAdmin(world, `update lot set free = 1000 where id = '${lots[1]}'`)
  const { db } = await startProcess(world.database.adminUrl)
  await db.transaction().execute(async (trx) => {
    await sql`select from account where ${sql.raw(accountOf(2))} for no key update`.execute(trx)
    expect(await expireAtMost(world, ONE)).toBe(1)
    expect(await expireLots(world.db)).toBe(0)
  })
  expect(await freeOf(world, ...lots)).toEqual([10n, 1000n, 10n, 0n])
  expect(await expireLots(world.db)).toBe(1)
})

test('idle money goes home though pockets in front of it are locked, or their wallets are ahead of the clock', async () => {
  const world = await createLedgerWorld()
  await world.deposit('EUR', 10n)
  await world.deposit('CHF', 10n)
  await world.deposit('JPY', 10n)
  await world.deposit('CNY', 10n)
  const purses: Purse[] = []
  for (const currency of ['EUR', 'CHF', 'JPY', 'CNY']) {
    const purse = await world.standing(world.keyId, { currency })
    await world.settle(purse, (await world.get(purse, 10n)).item, null)
    purses.push(purse)
  }
  const balances = () => Promise.all(purses.map(async (purse) => (await world.balance(purse))[0]))
  await setAhead(world, `kind = 'wallet' and currency = 'EUR'`)
  const { db } = await startProcess(world.database.adminUrl)
  await db.transaction().execute(async (trx) => {
    await sql`select from account where kind = 'wallet' and currency = 'CHF' for no key update`.execute(trx)
    await sql`select from account where kind = 'pocket' and currency = 'JPY' for no key update`.execute(trx)
    const { rows } = await sql`select empty_idle_standing('0 seconds', ${ONE}) as emptied`.execute(world.db)
    expect(rows).toEqual([{ emptied: 1 }])
    expect(await balances()).toEqual([10n, 10n, 10n, 0n])
  })
  expect(await emptyIdleStanding(world.db, '0 seconds')).toBe(2)
  expect(await balances()).toEqual([10n, 0n, 0n, 0n])
})

test('revoked keys are closed though the envelope of one cannot be', async () => {
  const world = await createLedgerWorld()
  await world.deposit('EUR', 10n)
  await world.deposit('CHF', 10n)
  const keys = [world.keyId, await world.makeKey()]
  const purses = await Promise.all(
    keys.map((key, place) => world.standing(key, { currency: place === 0 ? 'EUR' : 'CHF' })),
  )
  for (const [place, purse] of purses.entries()) {
    const { item } = await world.get(purse, 10n)
    const keyId = keys[place] ?? ''
    await world.db.transaction().execute((trx) => revokeOwnKey(trx, world.scope, keyId))
    await world.settle(purse, item, null)
  }
  await setAhead(world, `kind = 'wallet' and currency = 'EUR'`)
  expect(await closeRevokedStanding(world.db)).toBe(1)
  const gates = await Promise.all(purses.map((purse) => world.gateOf(purse)))
  expect(gates.map(([envelope]) => envelope).toSorted()).toEqual(['closed', 'closing'])
})

test('leases are folded though the windows of others are locked', async () => {
  const world = await createLimitWorld()
  const limits = [await world.limit(), await world.limit({ measure: 'calls', currency: null })]
  const envelope = await world.openEnvelope()
  await envelope.settle(await envelope.hold(), { amount: 6n })
  const operator = { keyId: newId(Date.now()), organisationId: world.organisationId, projectId: null }
  for (const limitId of limits) await retireLimit(world.db, operator, limitId)
  const folding = async () => {
    const { rows } = await sql<{ folded: number }>`select fold_leases(${ONE}) as folded`.execute(world.db)
    return rows[0]?.folded
  }
  const { db } = await startProcess(world.database.adminUrl)
  await db.transaction().execute(async (trx) => {
    // The window of the lease that a scan meets first.
    await sql`select from limit_window where limit_id = (select limit_id from lease limit 1) for no key update`.execute(
      trx,
    )
    expect(await folding()).toBe(1)
    expect(await folding()).toBe(0)
  })
  expect(await foldLeases(world.db)).toBe(1)
  const windows = await world.db.selectFrom('limit_window').select('used').orderBy('used').execute()
  expect(windows.map(({ used }) => used)).toEqual([1n, 6n])
})
