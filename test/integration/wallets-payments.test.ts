import { openChild } from '#db/envelope.ts'
import { newId } from '#db/ids.ts'
import { deposit } from '#db/ledger.ts'
import { expireLots } from '#db/lot.ts'
import { refund, type RefundRequest } from '#db/refund.ts'
import { reverseDeposit } from '#db/reversal.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import {
  close,
  CURRENCY,
  expectLotsTrue,
  freeOf,
  fund,
  funding,
  grantLot,
  letExpire,
  spend,
  walletOf,
} from '../support/wallets.ts'
import { createWorld, type World } from '../support/world.ts'

test('two operators who reverse a deposit at once reverse it once', async () => {
  const world = await createWorld()
  const { depositId, lotId } = await grantLot(world, 10n)
  const answers = await Promise.all(Array.from({ length: 6 }, () => reverse(world, depositId)))
  expect(answers.filter(({ verdict }) => verdict === 'reversed')).toHaveLength(1)
  expect(answers.filter(({ verdict }) => verdict === 'already_reversed')).toHaveLength(5)
  expect(new Set(answers.map(({ transferId }) => transferId)).size).toBe(1)
  expect(await freeOf(world, lotId)).toEqual([0n])
  expect(await debt(world, 'EUR')).toBe(0n)
  await expectLotsTrue(world)
})

test("what a deposit's lot no longer has is refused, or becomes a debt that blocks envelopes until it is paid", async () => {
  const world = await createWorld()
  const { depositId, lotId } = await grantLot(world, 10n)
  const { lotId: other } = await grantLot(world, 10n)
  const envelopeId = await fund(world, funding(7n))
  expect(await reverse(world, depositId)).toMatchObject({ verdict: 'wallet_short', taken: 3n, owed: 7n })
  expect(await freeOf(world, lotId, other)).toEqual([3n, 10n])
  expect(await reverse(world, depositId, 'owe')).toMatchObject({ verdict: 'reversed', taken: 3n, owed: 7n })
  expect(await reverse(world, depositId, 'owe')).toMatchObject({ verdict: 'already_reversed' })
  expect(await debt(world, 'EUR')).toBe(7n)
  await expect(fund(world, funding(1n))).rejects.toThrow('debt_outstanding')
  await close(world, envelopeId)
  expect(await freeOf(world, lotId, other)).toEqual([7n, 10n])
  const { lotId: paying } = await grantLot(world, 4n)
  expect(await debt(world, 'EUR')).toBe(0n)
  expect(await freeOf(world, lotId, other, paying)).toEqual([4n, 10n, 0n])
  await expectLotsTrue(world)
})

test('a deposit that is wholly spent can be reversed into a debt only', async () => {
  const world = await createWorld()
  const { depositId } = await grantLot(world, 10n)
  const envelopeId = await fund(world, funding(10n))
  await spend(world, envelopeId, 10n)
  await close(world, envelopeId)
  expect(await reverse(world, depositId)).toMatchObject({ verdict: 'wallet_short', taken: 0n, owed: 10n })
  const answers = await Promise.all([reverse(world, depositId, 'owe'), reverse(world, depositId, 'owe')])
  expect(answers.map(({ verdict }) => verdict).toSorted()).toEqual(['already_reversed', 'reversed'])
  expect(await debt(world, 'EUR')).toBe(10n)
  await expectLotsTrue(world)
})

test('what of a deposit has expired is taken back from where it expired to, and nobody owes it', async () => {
  const world = await createWorld()
  const { depositId, lotId } = await grantLot(world, 100n)
  await letExpire(world, lotId)
  await expireLots(world.db)
  expect(await reverse(world, depositId)).toMatchObject({ verdict: 'reversed', taken: 0n, expired: 100n, owed: 0n })
  expect(await reverse(world, depositId)).toMatchObject({ verdict: 'already_reversed' })
  const { depositId: second, lotId: lot } = await grantLot(world, 100n)
  const [spent, home] = [await fund(world, funding(30n)), await fund(world, funding(20n))]
  await letExpire(world, lot)
  await expireLots(world.db)
  await spend(world, spent, 30n)
  await close(world, home)
  const short = { verdict: 'wallet_short', taken: 20n, expired: 50n, owed: 30n }
  expect(await reverse(world, second)).toMatchObject(short)
  expect(await reverse(world, second, 'owe')).toMatchObject({ ...short, verdict: 'reversed' })
  expect([await debt(world, 'EUR'), await freeOf(world, lot)]).toEqual([30n, [0n]])
  const { rows } = await sql`
    select coalesce(sum(case when t.credit_account = a.id then t.amount else -t.amount end), 0)::bigint as left
    from account a join transfer t on a.id in (t.debit_account, t.credit_account)
    where a.kind = 'breakage' and a.currency = 'EUR'`.execute(world.db)
  expect(rows).toEqual([{ left: 0n }])
  await expectLotsTrue(world)
})

test('only a deposit of the own project can be reversed', async () => {
  const world = await createWorld()
  const { depositId } = await grantLot(world, 10n)
  const foreign = { projectId: newId(Date.now()) }
  const request = { id: newId(Date.now()), depositId, shortfall: 'owe' } as const
  expect(await reverseDeposit(world.db, foreign, request)).toMatchObject({ verdict: 'unknown_deposit' })
  const envelopeId = await fund(world, funding(10n))
  const topUp = await world.db
    .selectFrom('transfer')
    .select('id')
    .where('envelope_id', '=', envelopeId)
    .executeTakeFirstOrThrow()
  expect(await reverse(world, topUp.id)).toMatchObject({ verdict: 'unknown_deposit' })
  await expectLotsTrue(world)
})

test('direct money is refunded once per reference, and never more than there is', async () => {
  const world = await createWorld()
  const good = { amount: 60n, reference: 'r-1' }
  await giveDirect(world, 100n)
  const answers = await Promise.all(Array.from({ length: 5 }, () => pay(world, good)))
  expect(answers.map(({ verdict }) => verdict).toSorted()).toEqual([
    'refunded',
    'replayed',
    'replayed',
    'replayed',
    'replayed',
  ])
  expect(await pay(world, { ...good, amount: 61n })).toMatchObject({ verdict: 'reference_mismatch' })
  expect(await pay(world, { amount: 41n, reference: 'r-2' })).toMatchObject({ verdict: 'wallet_short', free: 40n })
  expect(await pay(world, { amount: 40n, reference: 'r-2', balanceClass: 'credit' })).toMatchObject({
    verdict: 'not_refundable',
  })
  expect(await pay(world, { amount: 1n, reference: 'r-2', currency: 'CHF' })).toMatchObject({
    verdict: 'wrong_currency',
  })
  expect(await pay(world, { amount: 1n, reference: '' })).toMatchObject({ verdict: 'invalid_reference' })
  expect(await pay(world, { amount: 1n, reference: 'r', walletId: newId(Date.now()) })).toMatchObject({
    verdict: 'unknown_wallet',
  })
  for (const amount of [0n, -5n, 10n ** 15n + 1n, 10n ** 40n]) {
    expect(await pay(world, { amount, reference: 'r-2' })).toMatchObject({ verdict: 'invalid_amount' })
  }
  expect(await pay(world, { amount: 40n, reference: 'r-2' })).toMatchObject({ verdict: 'refunded', free: 0n })
  await expectLotsTrue(world)
})

test('nothing is refunded while the project owes', async () => {
  const world = await createWorld()
  await giveDirect(world, 100n)
  const { depositId } = await grantLot(world, 10n)
  await fund(world, funding(10n))
  await reverse(world, depositId, 'owe')
  expect(await pay(world, { amount: 1n, reference: 'r' })).toMatchObject({ verdict: 'debt_outstanding' })
  await expectLotsTrue(world)
})

test('a child gives its remainder to its parent, and only the parent goes home', async () => {
  const world = await createWorld()
  const { lotId } = await grantLot(world, 10n)
  const parent = await fund(world, funding(10n))
  const child = newId(Date.now())
  const carving = { id: newId(Date.now()), balanceClass: 'credit', currency: CURRENCY, amount: 6n, cap: null } as const
  const opened = { parentId: parent, envelopeId: child, runId: null, kind: 'child', carvings: [carving] } as const
  expect(await openChild(world.db, world.scope, opened)).toBeUndefined()
  await spend(world, child, 2n)
  await close(world, child)
  const rows = await world.db.selectFrom('transfer').selectAll().where('code', '=', 'return').execute()
  expect(rows).toMatchObject([{ envelope_id: child, amount: 4n, lot_id: null }])
  expect(await freeOf(world, lotId)).toEqual([0n])
  await close(world, parent)
  expect(await freeOf(world, lotId)).toEqual([8n])
  await expectLotsTrue(world)
})

async function reverse(world: World, depositId: string, shortfall: 'refuse' | 'owe' = 'refuse') {
  return reverseDeposit(world.db, world.scope, { id: newId(Date.now()), depositId, shortfall })
}

async function pay(world: World, change: Partial<RefundRequest>) {
  const good = { balanceClass: 'direct', currency: 'EUR', amount: 1n, reference: 'r' } as const
  return refund(world.db, world.scope, { id: newId(Date.now()), walletId: await walletOf(world), ...good, ...change })
}

async function giveDirect(world: World, amount: bigint): Promise<void> {
  const { verdict } = await deposit(world.db, world.scope, {
    id: newId(Date.now()),
    walletId: await walletOf(world),
    balanceClass: 'direct',
    currency: 'EUR',
    amount,
    reference: 'direct',
  })
  expect(verdict).toBe('deposited')
}

async function debt(world: World, currency: string): Promise<bigint | undefined> {
  const { rows } = await sql<{
    debt: bigint
  }>`select project_debt(${world.scope.projectId}, ${currency}) as debt`.execute(world.db)
  return rows[0]?.debt
}
