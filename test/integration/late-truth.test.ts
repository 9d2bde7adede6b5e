import { post, settle, type ReserveItem } from '#db/hold.ts'
import { openChild } from '#db/envelope.ts'
import { newId } from '#db/ids.ts'
import { readInstant } from '#db/instant.ts'
import { createQuote } from '#db/quote.ts'
import { envelopesOf } from '#db/statement-envelope.ts'
import { expect, test } from 'vitest'
import { createLedgerWorld, type LedgerWorld, type Purse } from '../support/envelopes.ts'
import { debtOf, end, tell } from '../support/late-truth.ts'
import { expectVerified, resolution } from '../support/open-attempt.ts'
import { seeded } from '../support/seeded.ts'
import { startProcess } from '../support/storm.ts'
import { close, expectLotsTrue, freeOf, funding, grantLot } from '../support/wallets.ts'

test('what an attempt left as a debt is paid off before its correction gives anything back', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const item = await world.hold(root, 100n)
  await settle(world.db, root.pocket, { item: costing(item, 150n), mode: 'owner' })
  expect(await debtOf(world, 'USD')).toBe(50n)
  expect(await tell(world, root, item, 120n)).toBe('corrected')
  expect([await debtOf(world, 'USD'), await world.balance(root)]).toEqual([20n, [0n, 0n]])
  expect(await tell(world, root, item, 70n)).toBe('corrected')
  expect([await debtOf(world, 'USD'), await world.balance(root)]).toEqual([0n, [30n, 0n]])
  await expectVerified(world)
})

test('a debt that was paid since, and one of another attempt, are not paid off again', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const [one, other] = [await world.hold(root, 50n), await world.hold(root, 50n)]
  await settle(world.db, root.pocket, { item: costing(one, 60n), mode: 'owner' })
  await settle(world.db, root.pocket, { item: costing(other, 50n), mode: 'owner' })
  expect(await tell(world, root, other, 45n)).toBe('corrected')
  expect([await debtOf(world, 'USD'), await world.balance(root)]).toEqual([10n, [5n, 0n]])
  await world.deposit('USD', 10n)
  expect(await tell(world, root, one, 50n)).toBe('corrected')
  expect([await debtOf(world, 'USD'), await world.balance(root)]).toEqual([0n, [15n, 0n]])
  await expectVerified(world)
})

test("late truth about a closed child's attempt is paid from, and to, the nearest envelope above that is open", async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const middle = await world.openBelow(root, { amount: 60n })
  const leaf = await world.openBelow(middle, { amount: 50n })
  const item = await world.hold(leaf, 50n)
  await world.settle(leaf, item, 50n)
  await end(world, leaf)
  const wallet = await world.walletFree('USD')
  expect(await tell(world, leaf, item, 55n)).toBe('corrected')
  expect([await world.balance(middle), await world.balance(root)]).toEqual([
    [5n, 0n],
    [40n, 0n],
  ])
  await end(world, middle)
  expect(await tell(world, leaf, item, 80n)).toBe('corrected')
  expect(await world.balance(root)).toEqual([20n, 0n])
  expect(await tell(world, leaf, item, 20n)).toBe('corrected')
  expect(await world.balance(root)).toEqual([80n, 0n])
  expect(await world.walletFree('USD')).toBe(wallet)
  await end(world, root)
  expect(await world.walletFree('USD')).toBe(wallet + 80n)
  expect(await tell(world, leaf, item, 120n)).toBe('corrected')
  expect(await world.walletFree('USD')).toBe(wallet - 20n)
  expect(await tell(world, leaf, item, 0n)).toBe('corrected')
  expect(await world.walletFree('USD')).toBe(wallet + 100n)
  await expectVerified(world)
})

test('a statement names every closed envelope that late truth moved money through', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const child = await world.openBelow(root, { amount: 50n })
  const item = await world.hold(child, 50n)
  await world.settle(child, item, 50n)
  await end(world, child)
  await end(world, root)
  const from = await now(world)
  expect(await tell(world, child, item, 30n)).toBe('corrected')
  const to = await now(world)
  const period = { from, to, openedAt: from, closedAt: to, writtenAt: to, final: false }
  const moved: unknown[] = []
  for await (const envelopes of envelopesOf(world.db, world.scope, period)) {
    for (const { envelopeId, pockets } of envelopes)
      moved.push([envelopeId, pockets.flatMap(({ changes }) => changes.map(({ code, amount }) => [code, amount]))])
  }
  expect(moved).toEqual([
    [
      root.envelopeId,
      [
        ['return', 20n],
        ['return', -20n],
      ],
    ],
    [child.envelopeId, [['return', -20n]]],
  ])
})

test("late truth about a child's attempt gives back to the lot that paid, when all is closed", async () => {
  const world = await createLedgerWorld()
  const { lotId } = await grantLot(world, 100n, { expiresAt: new Date(Date.now() + 3_600_000) })
  const run = await world.openRun({}, [funding(100n)])
  const carving = { id: newId(Date.now()), balanceClass: 'credit', currency: 'EUR', amount: 100n, cap: null } as const
  const envelopeId = newId(Date.now())
  const child = { parentId: run.envelopeId, envelopeId, runId: null, kind: 'child', carvings: [carving] } as const
  expect(await openChild(world.db, world.scope, child)).toBeUndefined()
  const purse = await purseOf(world, { envelopeId, runId: run.runId })
  const item = await world.hold(purse, 100n)
  await world.settle(purse, item, 100n)
  await close(world, envelopeId)
  await close(world, run.envelopeId)
  expect(await tell(world, purse, item, 1n)).toBe('corrected')
  expect(await freeOf(world, lotId)).toEqual([99n])
  expect(await world.db.selectFrom('lot').select('id').where('source', '=', 'opening').execute()).toEqual([])
  await expectLotsTrue(world)
})

test('late truth crosses the exchange where the money did, at the quote it went out with', async () => {
  const world = await createLedgerWorld()
  await quoteFrancs(world, 7n)
  const { lotId } = await grantLot(world, 1_000n, { currency: 'CNY' })
  const run = await world.openRun({}, [funding(700n, { currency: 'CNY', exchangeTo: 'CHF' })])
  await quoteFrancs(world, 9n)
  const purse = await purseOf(world, run)
  const item = await world.hold(purse, 60n)
  await world.settle(purse, item, 30n)
  await close(world, run.envelopeId)
  expect(await freeOf(world, lotId)).toEqual([1_000n - 210n])
  expect(await tell(world, purse, item, 20n)).toBe('corrected')
  expect(await freeOf(world, lotId)).toEqual([1_000n - 140n])
  expect(await tell(world, purse, item, 45n)).toBe('corrected')
  expect(await freeOf(world, lotId)).toEqual([1_000n - 315n])
  expect(await debtOf(world, 'CHF')).toBe(0n)
  expect(await tell(world, purse, item, 0n)).toBe('corrected')
  expect(await freeOf(world, lotId)).toEqual([1_000n])
  expect(await tell(world, purse, item, 150n)).toBe('corrected')
  expect([await freeOf(world, lotId), await debtOf(world, 'CHF')]).toEqual([[6n], 8n])
  expect(await world.walletFree('CHF', 'credit')).toBe(0n)
  await expectLotsTrue(world)
})

test('what late truth brings over the exchange is rounded up, and all of it comes back', async () => {
  const world = await createLedgerWorld()
  await quoteFrancs(world, 10n, 3n)
  const { lotId } = await grantLot(world, 100n, { currency: 'CNY' })
  const run = await world.openRun({}, [funding(20n, { currency: 'CNY', exchangeTo: 'CHF' })])
  const purse = await purseOf(world, run)
  const item = await world.hold(purse, 6n)
  await world.settle(purse, item, 6n)
  await close(world, run.envelopeId)
  expect(await tell(world, purse, item, 10n)).toBe('corrected')
  expect(await freeOf(world, lotId)).toEqual([80n - 14n])
  expect(await tell(world, purse, item, 0n)).toBe('corrected')
  expect(await freeOf(world, lotId)).toEqual([100n])
  await expectLotsTrue(world)
})

test('money that lies idle in standing envelopes pays for late truth before anything is owed', async () => {
  const world = await createLedgerWorld()
  await world.deposit('EUR', 100n)
  const run = await world.openRun({}, [funding(40n, { balanceClass: 'direct' })])
  const purse = await purseOf(world, run)
  const item = await world.hold(purse, 40n)
  await world.settle(purse, item, 30n)
  await close(world, run.envelopeId)
  const standing = await world.standing(world.keyId, { currency: 'EUR' })
  const idle = await world.get(standing, 70n)
  await world.settle(standing, idle.item, null)
  expect(await tell(world, purse, item, 45n)).toBe('corrected')
  expect([await debtOf(world, 'EUR'), await world.walletFree('EUR')]).toEqual([0n, 55n])
  expect(await tell(world, purse, item, 130n)).toBe('corrected')
  expect([await debtOf(world, 'EUR'), await world.walletFree('EUR')]).toEqual([30n, 0n])
  await expectVerified(world)
})

test('late truth, payments, calls of a standing envelope and replays on closed pockets wait for each other, and never for good', async () => {
  const world = await createLedgerWorld({ connections: 12 })
  await world.deposit('EUR', 300n)
  const standing = await world.standing(world.keyId, { currency: 'EUR' })
  const { instanceId } = await startProcess(world.database.appUrl)
  const spent = await Promise.all(
    Array.from({ length: 4 }, async () => {
      const run = await world.openRun({}, [funding(40n, { balanceClass: 'direct' })])
      const purse = await purseOf(world, run)
      const item = await world.hold(purse, 40n)
      await settle(world.db, purse.pocket, { item: costing(item, 30n), mode: 'owner' })
      await close(world, run.envelopeId)
      return { purse, item }
    }),
  )
  const random = seeded(Number.parseInt(world.scope.projectId.slice(-7), 16))
  const steps = {
    correct: ({ purse, item }: (typeof spent)[number]) => tell(world, purse, item, BigInt(random(90))),
    call: async () => {
      const { item, verdict } = await world.get(standing, BigInt(1 + random(60)))
      if (verdict === 'granted') await world.settle(standing, item, BigInt(random(2)))
    },
    replay: async ({ purse, item }: (typeof spent)[number]) => {
      const reserve = { pocket: standing.pocket, item: await world.itemOf(standing, 1n) }
      const settles = [{ pocket: purse.pocket, item: costing(item, 30n) }]
      const { reserves } = await post(world.db, { instanceId, settles, reserves: [reserve] })
      if (reserves[0]?.verdict === 'granted') await world.settle(standing, reserve.item, 0n)
    },
    pay: () => world.deposit('EUR', 1n),
  }
  await Promise.all(
    Array.from({ length: 10 }, async () => {
      for (let turn = 0; turn < 40; turn += 1) {
        const one = spent[random(spent.length)]
        if (!one) throw new Error('nothing was spent')
        const step = (['correct', 'correct', 'call', 'replay', 'pay'] as const)[random(5)] ?? 'pay'
        await steps[step](one)
      }
    }),
  )
  await expectVerified(world)
})

function costing({ runId, callId, attempt, holdId }: ReserveItem, amount: bigint) {
  return resolution({ runId, callId, number: attempt, holdId }, amount)
}

async function purseOf(
  world: LedgerWorld,
  { envelopeId, runId }: { readonly envelopeId: string; readonly runId: string },
): Promise<Purse> {
  const { id } = await world.db
    .selectFrom('account')
    .select('id')
    .where('envelope_id', '=', envelopeId)
    .executeTakeFirstOrThrow()
  return { envelopeId, runId, pocket: { projectId: world.scope.projectId, accountId: id } }
}

async function now(world: LedgerWorld): Promise<string> {
  const instant = await readInstant(world.db, undefined)
  if (!instant) throw new Error('now is not ahead of the clock')
  return instant.at
}

async function quoteFrancs(world: LedgerWorld, sell: bigint, buy = 1n): Promise<void> {
  const { organisation_id: organisationId } = await world.db
    .selectFrom('project')
    .select('organisation_id')
    .executeTakeFirstOrThrow()
  const rate = { sellCurrency: 'CNY', sell, buyCurrency: 'CHF', buy }
  const times = { effectiveAt: null, expiresAt: null, nowMs: Date.now() }
  await createQuote(world.db, organisationId, { ...rate, ...times, source: 'test' })
}
