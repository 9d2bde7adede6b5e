import { newId } from '#db/ids.ts'
import { topUpEnvelope, type Funding } from '#db/ledger.ts'
import { createQuote } from '#db/quote.ts'
import { expect, test } from 'vitest'
import { everything } from '../support/bad-input.ts'
import { close, expectLotsTrue, fund, funding, grantLot } from '../support/wallets.ts'
import { createWorld, type World } from '../support/world.ts'

async function topUp(world: World, envelopeId: string, ...fundings: readonly Funding[]) {
  return (await topUpEnvelope(world.db, world.scope, { envelopeId, fundings }))?.reason
}

test('a top-up that is asked for again moves nothing, whatever has become of its envelope', async () => {
  const world = await createWorld()
  const { organisation_id: organisationId } = await world.db
    .selectFrom('project')
    .select('organisation_id')
    .executeTakeFirstOrThrow()
  const rate = { sellCurrency: 'CNY', sell: 7n, buyCurrency: 'EUR', buy: 2n, source: 'test' }
  await createQuote(world.db, organisationId, { ...rate, effectiveAt: null, expiresAt: null, nowMs: Date.now() })
  await grantLot(world, 10n)
  await grantLot(world, 10n)
  await grantLot(world, 100n, { currency: 'CNY' })
  const envelopeId = await fund(world)
  const fundings = [
    funding(15n),
    funding(30n, { currency: 'CNY', exchangeTo: 'EUR' }),
    funding(20n, { currency: 'CNY' }),
    funding(3n, { balanceClass: 'direct', currency: 'USD' }),
  ]
  const answers = await Promise.all(Array.from({ length: 5 }, () => topUp(world, envelopeId, ...fundings)))
  expect(answers).toEqual(Array(5).fill(undefined))
  const pockets = await world.db
    .selectFrom('account')
    .select(['balance_class', 'currency', 'posted_credit'])
    .where('envelope_id', '=', envelopeId)
    .orderBy('balance_class')
    .orderBy('currency')
    .execute()
  expect(pockets.map((pocket) => [pocket.balance_class, pocket.currency, pocket.posted_credit])).toEqual([
    ['credit', 'CNY', 20n],
    ['credit', 'EUR', 15n + 8n],
    ['direct', 'USD', 3n],
  ])
  await close(world, envelopeId)
  const before = await everything(world)
  expect(await topUp(world, envelopeId, ...fundings)).toBeUndefined()
  expect(await everything(world)).toEqual(before)
  await expectLotsTrue(world)
})

test('the ids of a top-up with anything else are a mismatch, and nothing is written', async () => {
  const world = await createWorld()
  await grantLot(world, 10n)
  await grantLot(world, 10n)
  const [one, two] = [await fund(world), await fund(world)]
  const known = funding(15n)
  expect(await topUp(world, one, known)).toBeUndefined()
  const before = await everything(world)
  for (const change of [
    { amount: 14n },
    { amount: 16n },
    { balanceClass: 'direct' },
    { currency: 'USD' },
    { exchangeTo: 'USD' },
  ] as const) {
    expect(await topUp(world, one, { ...known, ...change })).toBe('mismatch')
  }
  expect(await topUp(world, two, known)).toBe('mismatch')
  expect(await topUp(world, one, known, funding(1n))).toBe('mismatch')
  expect(await topUp(world, one, known, known)).toBe('mismatch')
  const { id } = await world.db
    .selectFrom('transfer')
    .select('id')
    .where('code', '=', 'deposit')
    .limit(1)
    .executeTakeFirstOrThrow()
  expect(await topUp(world, one, funding(1n, { id }))).toBe('mismatch')
  const fresh = { ...funding(1n), id: newId(Date.now()) }
  expect(await topUp(world, one, fresh, fresh)).toBe('mismatch')
  expect(await everything(world)).toEqual(before)
  await expectLotsTrue(world)
})
