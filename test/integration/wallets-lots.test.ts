import { newId } from '#db/ids.ts'
import { deposit, topUpEnvelope } from '#db/ledger.ts'
import { expireLots } from '#db/lot.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import {
  close,
  expectLotsTrue,
  freeOf,
  fund,
  funding,
  grantLot,
  letExpire,
  spend,
  walletOf,
  CURRENCY,
} from '../support/wallets.ts'
import { createWorld } from '../support/world.ts'

const inDays = (days: number) => new Date(Date.now() + days * 86_400_000)

test('lots are drawn by priority, then expiry, then id, and given back in reverse', async () => {
  const world = await createWorld()
  const old = await grantLot(world, 10n)
  const young = await grantLot(world, 10n)
  const late = await grantLot(world, 10n, { expiresAt: inDays(9) })
  const soon = await grantLot(world, 10n, { expiresAt: inDays(2) })
  const first = await grantLot(world, 10n, { priority: 1 })
  const lots = [first, soon, late, old, young].map(({ lotId }) => lotId)
  const envelopeId = await fund(world, funding(45n))
  expect(await freeOf(world, ...lots)).toEqual([0n, 0n, 0n, 0n, 5n])
  const drawn = await world.db
    .selectFrom('transfer')
    .select(['lot_id', 'amount'])
    .where('envelope_id', '=', envelopeId)
    .orderBy('seq')
    .execute()
  expect(drawn.map((row) => row.lot_id)).toEqual(lots)
  await spend(world, envelopeId, 27n)
  await close(world, envelopeId)
  expect(await freeOf(world, ...lots)).toEqual([0n, 0n, 3n, 10n, 10n])
  await expectLotsTrue(world)
})

test('a top-up is a draw of its own: what came last goes back first', async () => {
  const world = await createWorld()
  const { lotId: first } = await grantLot(world, 10n)
  const envelopeId = await fund(world, funding(6n))
  const { lotId: better } = await grantLot(world, 10n, { priority: 1 })
  const more = { envelopeId, fundings: [funding(12n)] }
  expect(await topUpEnvelope(world.db, world.scope, more)).toBeUndefined()
  expect(await freeOf(world, first, better)).toEqual([2n, 0n])
  await spend(world, envelopeId, 5n)
  await close(world, envelopeId)
  expect(await freeOf(world, first, better)).toEqual([5n, 10n])
  await expectLotsTrue(world)
})

test('a lot does not expire in an envelope, and expires when it is back', async () => {
  const world = await createWorld()
  const { lotId } = await grantLot(world, 10n, { expiresAt: inDays(1) })
  const envelopeId = await fund(world, funding(8n))
  await letExpire(world, lotId)
  expect(await expireLots(world.db)).toBe(1)
  expect(await freeOf(world, lotId)).toEqual([0n])
  await spend(world, envelopeId, 3n)
  await close(world, envelopeId)
  expect(await freeOf(world, lotId)).toEqual([5n])
  await expect(fund(world, funding(1n))).rejects.toThrow('wallet_short')
  expect(await expireLots(world.db)).toBe(1)
  expect(await broken(world)).toEqual([2n, 5n])
  await expectLotsTrue(world)
})

test('what is due is broken before it can be drawn, in the same transaction', async () => {
  const world = await createWorld()
  const { lotId: due } = await grantLot(world, 10n, { expiresAt: inDays(1) })
  const { lotId: good } = await grantLot(world, 10n)
  await letExpire(world, due)
  await expect(fund(world, funding(11n))).rejects.toThrow('wallet_short')
  expect(await freeOf(world, due, good)).toEqual([10n, 10n])
  await fund(world, funding(10n))
  expect(await freeOf(world, due, good)).toEqual([0n, 0n])
  expect(await broken(world)).toEqual([10n])
  await expectLotsTrue(world)
})

test('many sweeps and fundings at once break each lot once', async () => {
  const world = await createWorld()
  const lots = await Promise.all(Array.from({ length: 6 }, () => grantLot(world, 10n, { expiresAt: inDays(1) })))
  await grantLot(world, 100n)
  for (const { lotId } of lots) await letExpire(world, lotId)
  await Promise.all([
    ...Array.from({ length: 4 }, () => expireLots(world.db)),
    ...Array.from({ length: 3 }, () => fund(world, funding(10n))),
  ])
  await expireLots(world.db)
  expect(await broken(world)).toEqual(lots.map(() => 10n))
  expect(await expireLots(world.db)).toBe(0)
  await expectLotsTrue(world)
})

test('of two fundings that race for the last lot one is refused', async () => {
  const world = await createWorld()
  const { lotId } = await grantLot(world, 10n)
  const results = await Promise.allSettled([fund(world, funding(10n)), fund(world, funding(10n))])
  expect(results.map((result) => result.status).toSorted()).toEqual(['fulfilled', 'rejected'])
  expect(await freeOf(world, lotId)).toEqual([0n])
  await expectLotsTrue(world)
})

test('a debt is paid out of the new lot first', async () => {
  const world = await createWorld()
  const { depositId, lotId } = await grantLot(world, 10n)
  await fund(world, funding(6n))
  const { rows } =
    await sql`select * from reverse_deposit(${world.scope.projectId}, ${depositId}, uuidv7(), true)`.execute(world.db)
  expect(rows).toMatchObject([{ verdict: 'reversed', taken: 4n, owed: 6n }])
  const { lotId: next } = await grantLot(world, 10n)
  expect(await freeOf(world, lotId, next)).toEqual([0n, 4n])
  await expectLotsTrue(world)
})

test('garbage is refused by name, and nothing is written', async () => {
  const world = await createWorld()
  const walletId = await walletOf(world)
  const before = await world.db.selectFrom('transfer').select('id').execute()
  const good = { walletId, balanceClass: 'credit', currency: CURRENCY, amount: 1n, reference: 'r' } as const
  const ask = async (change: Partial<Parameters<typeof deposit>[2]>) =>
    (await deposit(world.db, world.scope, { id: newId(Date.now()), ...good, ...change })).verdict
  const lot = { source: 'grant', priority: 1, expiresAt: null }
  expect(await ask({ amount: 0n })).toBe('invalid_amount')
  expect(await ask({ amount: -1n })).toBe('invalid_amount')
  expect(await ask({ amount: 10n ** 15n + 1n })).toBe('invalid_amount')
  expect(await ask({ amount: 10n ** 30n })).toBe('invalid_amount')
  expect(await ask({ reference: '' })).toBe('invalid_reference')
  expect(await ask({ currency: 'euro' })).toBe('wrong_currency')
  expect(await ask({ walletId: newId(Date.now()) })).toBe('unknown_wallet')
  expect(await ask({ balanceClass: 'direct', lot })).toBe('wrong_lot')
  expect(await ask({ lot: { ...lot, source: 'opening' } })).toBe('wrong_lot')
  expect(await ask({ lot: { ...lot, expiresAt: new Date(0) } })).toBe('lot_expired')
  for (const amount of [0n, -1n, 10n ** 15n + 1n, 10n ** 30n]) {
    await expect(fund(world, funding(amount))).rejects.toThrow('invalid_amount')
  }
  const { rows } = await sql`select reason from top_up_envelope(${world.scope.projectId}, ${await fund(world)},
    '[{"balance_class": "credit", "currency": "USD", "amount": 1.5}]')`.execute(world.db)
  expect(rows).toEqual([{ reason: 'invalid_amount' }])
  expect(await world.db.selectFrom('transfer').select('id').execute()).toEqual(before)
})

test('a deposit replays with the terms of its lot, and with other terms it is another one', async () => {
  const world = await createWorld()
  const lot = { source: 'campaign', priority: 5, expiresAt: inDays(3) }
  const good = {
    walletId: await walletOf(world),
    balanceClass: 'credit',
    currency: CURRENCY,
    amount: 9n,
    reference: 'r',
    lot,
  } as const
  const ask = async (change: Partial<typeof good> = {}) =>
    (await deposit(world.db, world.scope, { id: newId(Date.now()), ...good, ...change })).verdict
  expect(await ask()).toBe('deposited')
  expect(await ask()).toBe('replayed')
  expect(
    await deposit(world.db, world.scope, { id: newId(Date.now()), ...good, lot: { ...lot, priority: 6 } }),
  ).toMatchObject({
    verdict: 'reference_mismatch',
  })
  expect(await deposit(world.db, world.scope, { id: newId(Date.now()), ...good, lot: undefined })).toMatchObject({
    verdict: 'reference_mismatch',
  })
  await expectLotsTrue(world)
})

async function broken(world: Awaited<ReturnType<typeof createWorld>>): Promise<readonly bigint[]> {
  const rows = await world.db
    .selectFrom('transfer')
    .select('amount')
    .where('code', '=', 'breakage')
    .orderBy('seq')
    .execute()
  return rows.map((row) => row.amount)
}
