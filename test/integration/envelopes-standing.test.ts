import type { TransferCode } from '#contracts/names.ts'
import {
  closeRevokedStanding,
  closeStanding,
  emptyIdleStanding,
  standingEnvelope,
  standingPocket,
} from '#db/envelope.ts'
import { newId } from '#db/ids.ts'
import { openEnvelope, topUpEnvelope } from '#db/ledger.ts'
import pg from 'pg'
import { expect, test } from 'vitest'
import { createLedgerWorld, type LedgerWorld } from '../support/envelopes.ts'
import { revokeOwnKey } from '../support/keys.ts'
import { expectVerified } from '../support/open-attempt.ts'

/** Money of a currency that only the test deposits. */
const EUR = { currency: 'EUR' }
const noWait = { signal: new AbortController().signal }

async function transfersOf(world: LedgerWorld, code: TransferCode): Promise<readonly bigint[]> {
  const rows = await world.db
    .selectFrom('transfer')
    .select('amount')
    .where('code', '=', code)
    .where('currency', '=', EUR.currency)
    .orderBy('seq')
    .execute()
  return rows.map(({ amount }) => amount)
}

test('a key has one standing envelope, whoever asks first, for its organisation, project and key', async () => {
  const world = await createLedgerWorld()
  const asked = await Promise.all(Array.from({ length: 8 }, () => world.standing(world.keyId)))
  expect(new Set(asked.map((purse) => purse.envelopeId)).size).toBe(1)
  expect(new Set(asked.map((purse) => purse.pocket.accountId)).size).toBe(1)
  const envelope = await standingEnvelope(world.db, world.scope, world.keyId)
  expect(envelope).toEqual({ ok: true, envelopeId: asked[0]?.envelopeId })
  const project = await world.db.selectFrom('project').selectAll().executeTakeFirstOrThrow()
  const { subjects } = await world.db
    .selectFrom('envelope')
    .select('subjects')
    .where('kind', '=', 'standing')
    .executeTakeFirstOrThrow()
  expect(subjects).toEqual([project.organisation_id, project.id, world.keyId])
  const other = await world.standing(world.keyId, { balanceClass: 'credit' })
  expect(other.envelopeId).toBe(asked[0]?.envelopeId)
  const foreign = { projectId: newId(Date.now()) }
  expect(await standingEnvelope(world.db, foreign, world.keyId)).toEqual({ ok: false, reason: 'unknown_key' })
  const dollars = { keyId: world.keyId, balanceClass: 'direct', currency: 'usd' } as const
  expect(await standingPocket(world.db, world.scope, dollars)).toEqual({ ok: false, reason: 'wrong_currency' })
})

test('a standing pocket is filled in slices: the wallet is asked once in many calls, and never emptied ahead of need', async () => {
  const world = await createLedgerWorld()
  await world.deposit('EUR', 1_600_000n)
  const purse = await world.standing(world.keyId, EUR)
  for (let call = 0; call < 60; call += 1) {
    const { item, verdict } = await world.get(purse, 100n)
    expect(verdict).toBe('granted')
    await world.settle(purse, item, 100n)
  }
  expect(await transfersOf(world, 'top_up')).toEqual([6_400n])
  const large = await world.get(purse, 160_000n)
  expect(large.verdict).toBe('granted')
  const [, second] = await transfersOf(world, 'top_up')
  expect(second).toBe(159_600n + (1_593_600n - 159_600n) / 16n)
  await expectVerified(world)
})

test('a call of a filled standing pocket locks no wallet', async () => {
  const world = await createLedgerWorld()
  await world.deposit('EUR', 10_000n)
  const purse = await world.standing(world.keyId, EUR)
  const first = await world.get(purse, 10n)
  const holder = new pg.Client(world.database.adminUrl)
  await holder.connect()
  try {
    await holder.query('begin')
    await holder.query("select from account where kind = 'wallet' for update")
    await holder.query('select from wallet for update')
    const item = await world.itemOf(purse, 10n)
    expect((await world.queue.reserve(purse.pocket, item, noWait)).verdict).toBe('granted')
    await world.settle(purse, item, 10n)
    await world.settle(purse, first.item, 4n)
    await holder.query('rollback')
  } finally {
    await holder.end()
  }
  await expectVerified(world)
})

test('two keys, one wallet with money for one call: the idle slice is recalled before the other is refused', async () => {
  const world = await createLedgerWorld()
  await world.deposit('EUR', 100n)
  const one = await world.standing(world.keyId, EUR)
  const two = await world.standing(await world.makeKey(), EUR)
  const first = await world.get(one, 100n)
  expect(first.verdict).toBe('granted')
  const item = await world.itemOf(two, 100n)
  expect(await world.reserve(two, item)).toBe('short')
  expect(await world.find(two, item)).toBe('busy')
  await world.settle(one, first.item, null)
  expect(await world.balance(one)).toEqual([100n, 0n])
  expect((await world.queue.reserve(two.pocket, item, noWait)).verdict).toBe('granted')
  expect(await world.balance(one)).toEqual([0n, 0n])
  await world.settle(two, item, 1n)
  expect((await world.queue.reserve(one.pocket, await world.itemOf(one, 100n), noWait)).verdict).toBe('exhausted')
  expect(await world.refusals()).toEqual([{ bound: 'wallet', asked: 100n, free: 99n, cap: null }])
  expect((await world.queue.reserve(one.pocket, await world.itemOf(one, 99n), noWait)).verdict).toBe('granted')
  await expectVerified(world)
})

test('what rested longest is recalled first, and no more envelopes than it takes', async () => {
  const world = await createLedgerWorld()
  const keys = [world.keyId, await world.makeKey(), await world.makeKey(), await world.makeKey()]
  const purses = await Promise.all(keys.map((key) => world.standing(key, EUR)))
  const [old, middle, young, asking] = purses
  if (!old || !middle || !young || !asking) throw new Error('four keys have four purses')
  for (const purse of [old, middle, young]) {
    await world.deposit('EUR', 30n)
    await world.settle(purse, (await world.get(purse, 30n)).item, null)
  }
  const held = await world.hold(old, 20n)
  expect((await world.get(asking, 35n)).verdict).toBe('granted')
  expect(await Promise.all(purses.map((purse) => world.balance(purse)))).toEqual([
    [30n, 20n],
    [0n, 0n],
    [0n, 0n],
    [36n, 35n],
  ])
  await world.settle(old, held, 20n)
  await expectVerified(world)
})

test('credit is drawn by lots into a standing pocket, and goes back to them', async () => {
  const world = await createLedgerWorld()
  await world.deposit('EUR', 60n, 'credit')
  await world.deposit('EUR', 60n, 'credit')
  const lots = async () =>
    (
      await world.db
        .selectFrom('lot')
        .innerJoin('account', 'account.id', 'lot.account_id')
        .select('lot.free')
        .where('account.currency', '=', 'EUR')
        .orderBy('lot.id')
        .execute()
    ).map(({ free }) => free)
  const purse = await world.standing(world.keyId, { currency: 'EUR', balanceClass: 'credit' })
  const { item } = await world.get(purse, 100n)
  expect(await lots()).toEqual([0n, 19n])
  await world.settle(purse, item, 30n)
  expect(await emptyIdleStanding(world.db, '0 seconds')).toBe(1)
  expect(await lots()).toEqual([30n, 60n])
  await expectVerified(world)
})

test('idle money goes home, once however many ask, and what is held stays', async () => {
  const world = await createLedgerWorld()
  await world.deposit('EUR', 1_000n)
  const purse = await world.standing(world.keyId, EUR)
  const held = await world.get(purse, 100n)
  expect(await emptyIdleStanding(world.db, '1 hour')).toBe(0)
  const emptied = await Promise.all(Array.from({ length: 6 }, () => emptyIdleStanding(world.db, '0 seconds')))
  expect(emptied.reduce((sum, each) => sum + each, 0)).toBe(1)
  expect([await world.balance(purse), await world.walletFree('EUR')]).toEqual([[100n, 100n], 900n])
  await world.settle(purse, held.item, 40n)
  expect(await emptyIdleStanding(world.db, '0 seconds')).toBe(1)
  expect(await world.walletFree('EUR')).toBe(960n)
  await expectVerified(world)
})

test('a revoked key: no call begins from that commit on, and its money is home as soon as no hold is open', async () => {
  const world = await createLedgerWorld()
  await world.deposit('EUR', 1_000n)
  const purse = await world.standing(world.keyId, EUR)
  const child = await world.standing(await world.makeKey(), EUR)
  const held = await world.get(purse, 100n)
  const revoke = () => world.db.transaction().execute((trx) => revokeOwnKey(trx, world.scope, world.keyId))
  expect(await revoke()).toMatchObject({ ok: true })
  const late = await world.itemOf(purse, 1n)
  expect(await world.reserve(purse, late)).toBe('closing')
  expect(await world.find(purse, late)).toBe('closing')
  expect(
    await standingPocket(world.db, world.scope, { keyId: world.keyId, balanceClass: 'direct', currency: 'CNY' }),
  ).toEqual({ ok: false, reason: 'revoked_key' })
  expect(await closeRevokedStanding(world.db)).toBe(0)
  await world.settle(purse, held.item, 30n)
  const closed = await Promise.all([closeRevokedStanding(world.db), closeRevokedStanding(world.db)])
  expect(Math.max(...closed)).toBe(1)
  expect([await world.gateOf(purse), await world.walletFree('EUR')]).toEqual([['closed', 'closed'], 970n])
  expect(await standingEnvelope(world.db, world.scope, world.keyId)).toEqual({ ok: false, reason: 'revoked_key' })
  expect(await revoke()).toMatchObject({ ok: true })
  expect((await world.get(child, 900n)).verdict).toBe('granted')
  await expectVerified(world)
})

test('a key whose standing envelope holds nothing is closed with its revocation, or not revoked at all', async () => {
  const world = await createLedgerWorld()
  await world.deposit('EUR', 1_000n)
  const purse = await world.standing(world.keyId, EUR)
  const { item } = await world.get(purse, 100n)
  await world.settle(purse, item, 100n)
  const failing = world.db.transaction().execute(async (trx) => {
    await revokeOwnKey(trx, world.scope, world.keyId)
    throw new Error('the request died')
  })
  await expect(failing).rejects.toThrow('the request died')
  expect(await world.gateOf(purse)).toEqual(['open', 'open'])
  await world.db.transaction().execute((trx) => revokeOwnKey(trx, world.scope, world.keyId))
  expect([await world.gateOf(purse), await world.walletFree('EUR')]).toEqual([['closed', 'closed'], 900n])
  await expectVerified(world)
})

test('children of a standing envelope are paid from its wallet too, and close with it', async () => {
  const world = await createLedgerWorld()
  await world.deposit('USD', 1n)
  const purse = await world.standing(world.keyId)
  const child = await world.openBelow(purse, { cap: 50n })
  expect((await world.get(child, 51n)).verdict).toBe('exhausted')
  const { item, verdict } = await world.get(child, 50n)
  expect(verdict).toBe('granted')
  const before = await world.db.transaction().execute((trx) => closeStanding(trx, world.scope, world.keyId))
  expect(before).toBe('open_holds')
  await world.settle(child, item, 20n)
  expect(await closeRevokedStanding(world.db)).toBe(1)
  expect([await world.gateOf(child), await world.gateOf(purse)].flat()).toEqual(Array(4).fill('closed'))
  expect(await world.walletFree('USD')).toBe(1_000_000_000_001n - 20n)
  await expectVerified(world)
})

test('a run is not refused for money that lies idle in a standing envelope, neither at its start nor at a top-up', async () => {
  const world = await createLedgerWorld()
  await world.deposit('EUR', 100n)
  const { db, scope } = world
  const purse = await world.standing(world.keyId, EUR)
  const held = await world.get(purse, 40n)
  await world.settle(purse, (await world.get(purse, 20n)).item, null)
  const funding = (amount: bigint) => [{ id: newId(Date.now()), balanceClass: 'direct', ...EUR, amount } as const]
  const open = (amount: bigint) =>
    db.transaction().execute(async (trx) => {
      const envelopeId = newId(Date.now())
      const request = { envelopeId, runId: newId(Date.now()), apiKeyId: world.keyId, fundings: funding(amount) }
      const refusal = await openEnvelope(trx, scope, request)
      if (refusal) throw new Error(`${refusal.reason}: ${refusal.free} of ${refusal.asked}`)
      return envelopeId
    })
  await expect(open(61n)).rejects.toThrow('wallet_short: 60 of 61')
  const envelopeId = await open(58n)
  expect(await world.balance(purse)).toEqual([40n, 40n])
  await world.settle(purse, held.item, null)
  const topUp = (to: string) => topUpEnvelope(db, scope, { envelopeId: to, fundings: funding(42n) })
  expect(await topUp(purse.envelopeId)).toMatchObject({ reason: 'standing_envelope' })
  expect(await topUp(envelopeId)).toBeUndefined()
  expect([await world.balance(purse), await world.walletFree('EUR')]).toEqual([[0n, 0n], 0n])
  expect((await world.get(await world.standing(world.keyId, { currency: 'JPY' }), 1n)).verdict).toBe('exhausted')
  await expectVerified(world)
})
