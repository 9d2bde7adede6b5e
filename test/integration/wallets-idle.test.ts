import { post, type ReserveItem } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { openEnvelope, topUpEnvelope } from '#db/ledger.ts'
import { expireLots } from '#db/lot.ts'
import { refund } from '#db/refund.ts'
import { reverseDeposit } from '#db/reversal.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { createLedgerWorld, type LedgerWorld, type Purse } from '../support/envelopes.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { somebodyWaits, startProcess } from '../support/storm.ts'
import { expectLotsTrue, freeOf, funding, grantLot, letExpire, walletOf } from '../support/wallets.ts'

const EUR = { currency: 'EUR' } as const
const CREDIT = { currency: 'EUR', balanceClass: 'credit' } as const

/** Money in a standing pocket that no call uses. */
async function idle(world: LedgerWorld, purse: Purse, amount: bigint): Promise<void> {
  const { item, verdict } = await world.get(purse, amount)
  expect(verdict).toBe('granted')
  await world.settle(purse, item, null)
}

async function twoPurses(world: LedgerWorld, change: { currency: string; balanceClass?: 'credit' }) {
  return [await world.standing(world.keyId, change), await world.standing(await world.makeKey(), change)] as const
}

async function broken(world: LedgerWorld): Promise<bigint> {
  const rows = await world.db.selectFrom('transfer').select('amount').where('code', '=', 'breakage').execute()
  return rows.reduce((sum, { amount }) => sum + amount, 0n)
}

test('idle money of a lot that is due expires as it is recalled, and no call is paid from it', async () => {
  const world = await createLedgerWorld()
  const { lotId } = await grantLot(world, 100n)
  const [one, two] = await twoPurses(world, CREDIT)
  await idle(world, one, 100n)
  await letExpire(world, lotId)
  await expireLots(world.db)
  expect((await world.get(two, 100n)).verdict).toBe('exhausted')
  expect([await world.balance(one), await world.balance(two), await broken(world)]).toEqual([[0n, 0n], [0n, 0n], 100n])
  expect(await world.refusals()).toEqual([{ bound: 'wallet', asked: 100n, free: 0n, cap: null }])
  await expectLotsTrue(world)
})

test('whoever finds that recalled money was due asks the next idle pocket, for a call and for a run', async () => {
  const world = await createLedgerWorld()
  const [one, two] = await twoPurses(world, CREDIT)
  const three = await world.standing(await world.makeKey(), CREDIT)
  const { lotId: due } = await grantLot(world, 100n)
  await idle(world, one, 100n)
  const { lotId: good } = await grantLot(world, 100n)
  await idle(world, two, 100n)
  await letExpire(world, due)
  await idle(world, three, 100n)
  expect([await freeOf(world, due, good), await broken(world)]).toEqual([[0n, 0n], 100n])
  const { lotId: late } = await grantLot(world, 50n)
  await idle(world, one, 50n)
  await letExpire(world, good)
  const run = await openRun(world, 51n, 'credit')
  expect(run).toMatchObject({ reason: 'wallet_short', asked: 51n, free: 50n })
  expect(await openRun(world, 50n, 'credit')).toBeUndefined()
  expect([await freeOf(world, good, late), await broken(world)]).toEqual([[0n, 0n], 200n])
  await expectLotsTrue(world)
})

test('a call does not wait for money that expires as it comes home', async () => {
  const world = await createLedgerWorld()
  const [one, two] = await twoPurses(world, CREDIT)
  const held: ReserveItem[] = []
  const { lotId: due } = await grantLot(world, 60n)
  held.push((await world.get(one, 60n)).item)
  await grantLot(world, 40n)
  held.push((await world.get(one, 40n)).item)
  expect((await world.get(two, 100n)).verdict).toBe('busy')
  await letExpire(world, due)
  expect((await world.get(two, 41n)).verdict).toBe('exhausted')
  expect((await world.get(two, 40n)).verdict).toBe('busy')
  expect((await world.get(one, 100n)).verdict).toBe('busy')
  expect(await world.refusals()).toEqual([{ bound: 'wallet', asked: 41n, free: 40n, cap: null }])
  for (const item of held) await world.settle(one, item, null)
  expect((await world.get(two, 40n)).verdict).toBe('granted')
  await expectLotsTrue(world)
})

test("a run is not refused for a pocket that was used meanwhile while another key's money is idle", async () => {
  const world = await createLedgerWorld()
  const purses = await twoPurses(world, EUR)
  for (const purse of purses) {
    await world.deposit('EUR', 100n)
    await idle(world, purse, 100n)
  }
  const [old, young] = purses
  const item = await world.itemOf(old, 100n)
  const { db, instanceId } = await startProcess(world.database.adminUrl)
  const opening = await db.transaction().execute(async (trx) => {
    await sql`select from account where id = ${old.pocket.accountId} for no key update`.execute(trx)
    const refusal = openRun(world, 100n, 'direct')
    await somebodyWaits(db)
    const { reserves } = await post(trx, { instanceId, settles: [], reserves: [{ pocket: old.pocket, item }] })
    expect(reserves[0]?.verdict).toBe('granted')
    return { refusal }
  })
  expect(await opening.refusal).toBeUndefined()
  expect([await world.balance(old), await world.balance(young)]).toEqual([
    [100n, 100n],
    [0n, 0n],
  ])
  await expectVerified(world)
})

test('runs, top-ups and calls that recall from one another never block each other for good', async () => {
  const world = await createLedgerWorld()
  const keys = [world.keyId, await world.makeKey(), await world.makeKey(), await world.makeKey()]
  const purses = await Promise.all(keys.map((key) => world.standing(key, EUR)))
  await world.deposit('EUR', 400n)
  const run = await world.openRun({}, [funding(1n, { balanceClass: 'direct' })])
  const calls = purses.map(async (purse) => {
    for (let turn = 0; turn < 12; turn += 1) {
      const { item, verdict } = await world.get(purse, 60n)
      if (verdict === 'granted') await world.settle(purse, item, 1n)
    }
  })
  const runs = Array.from({ length: 12 }, () => openRun(world, 10n, 'direct'))
  const topUps = Array.from({ length: 12 }, () =>
    topUpEnvelope(world.db, world.scope, { ...run, fundings: [funding(2n, { balanceClass: 'direct' })] }),
  )
  await Promise.all([...calls, ...runs, ...topUps])
  await expectVerified(world)
})

test('direct money that lies idle in a standing pocket is refunded and reversed', async () => {
  const world = await createLedgerWorld()
  const purse = await world.standing(world.keyId, EUR)
  const { transferId } = await give(world, 100n)
  await idle(world, purse, 100n)
  expect(await pay(world, 101n)).toMatchObject({ verdict: 'wallet_short', free: 100n })
  await idle(world, purse, 100n)
  expect(await pay(world, 40n)).toMatchObject({ verdict: 'refunded', free: 60n })
  await give(world, 40n)
  await idle(world, purse, 100n)
  const reversal = { id: newId(Date.now()), depositId: transferId, shortfall: 'refuse' } as const
  expect(await reverseDeposit(world.db, world.scope, reversal)).toMatchObject({
    verdict: 'reversed',
    taken: 100n,
    owed: 0n,
  })
  expect([await world.balance(purse), await world.walletFree('EUR')]).toEqual([[0n, 0n], 0n])
  await expectVerified(world)
})

test('a reversal of credit recalls what lies idle of its own lot, due or not, and leaves what is held', async () => {
  const world = await createLedgerWorld()
  const [one, two] = await twoPurses(world, CREDIT)
  const { depositId, lotId } = await grantLot(world, 100n)
  await idle(world, one, 100n)
  const held = await world.hold(one, 30n)
  await grantLot(world, 50n)
  await idle(world, two, 50n)
  await letExpire(world, lotId)
  const reverse = (shortfall: 'refuse' | 'owe') =>
    reverseDeposit(world.db, world.scope, { id: newId(Date.now()), depositId, shortfall })
  expect(await reverse('refuse')).toMatchObject({ verdict: 'wallet_short', taken: 70n, expired: 0n, owed: 30n })
  expect(await world.balance(two)).toEqual([50n, 0n])
  await world.settle(one, held, null)
  expect(await reverse('refuse')).toMatchObject({ verdict: 'reversed', taken: 100n, expired: 0n, owed: 0n })
  expect(await world.balance(two)).toEqual([50n, 0n])
  await expectLotsTrue(world)
})

async function openRun(world: LedgerWorld, amount: bigint, balanceClass: 'direct' | 'credit') {
  const request = { envelopeId: newId(Date.now()), runId: newId(Date.now()), apiKeyId: world.keyId }
  const refused = new Error('refused')
  let refusal: Awaited<ReturnType<typeof openEnvelope>>
  await world.db
    .transaction()
    .execute(async (trx) => {
      refusal = await openEnvelope(trx, world.scope, { ...request, fundings: [funding(amount, { balanceClass })] })
      if (refusal) throw refused
    })
    .catch((error: unknown) => {
      if (error !== refused) throw error
    })
  return refusal
}

async function give(world: LedgerWorld, amount: bigint): Promise<{ readonly transferId: string }> {
  await world.deposit('EUR', amount)
  const row = await world.db
    .selectFrom('transfer')
    .select('id')
    .where('code', '=', 'deposit')
    .orderBy('seq', 'desc')
    .limit(1)
    .executeTakeFirstOrThrow()
  return { transferId: row.id }
}

async function pay(world: LedgerWorld, amount: bigint) {
  const id = newId(Date.now())
  const request = {
    id,
    walletId: await walletOf(world),
    balanceClass: 'direct',
    ...EUR,
    amount,
    reference: id,
  } as const
  return refund(world.db, world.scope, request)
}
