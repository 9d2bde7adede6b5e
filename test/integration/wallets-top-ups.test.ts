import { newId } from '#db/ids.ts'
import { openEnvelope, topUpEnvelope, type Funding } from '#db/ledger.ts'
import { createQuote } from '#db/quote.ts'
import { expect, test } from 'vitest'
import { everything } from '../support/bad-input.ts'
import { close, expectLotsTrue, fund, funding, grantLot } from '../support/wallets.ts'
import { createWorld, makeKey, type World } from '../support/world.ts'

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
  const both = [funding(1n), funding(2n, { balanceClass: 'direct', currency: 'USD' })]
  expect(await topUp(world, two, ...both)).toBeUndefined()
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
  expect(await topUp(world, two, ...both.slice(1))).toBe('mismatch')
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

test('an envelope that is opened again is the same, at once and ever after, and moves nothing', async () => {
  const world = await createWorld()
  await grantLot(world, 10n)
  await grantLot(world, 10n)
  const fundings = [funding(15n), funding(3n, { balanceClass: 'direct', currency: 'USD' })]
  const request = await requestOf(world, fundings)
  const answers = await Promise.all(Array.from({ length: 5 }, () => openEnvelope(world.db, world.scope, request)))
  expect(answers).toEqual(Array(5).fill(undefined))
  const later = funding(1n)
  expect(await topUp(world, request.envelopeId, later)).toBeUndefined()
  const other = await requestOf(world, [])
  expect(await openEnvelope(world.db, world.scope, other)).toBeUndefined()
  await close(world, request.envelopeId)
  const before = await everything(world)
  expect(await openEnvelope(world.db, world.scope, request)).toBeUndefined()
  expect(await openEnvelope(world.db, world.scope, other)).toBeUndefined()
  expect(await everything(world)).toEqual(before)
  await expectLotsTrue(world)
})

test("an envelope's id, or a funding's, that stands for something else is refused by name, and nothing is written", async () => {
  const world = await createWorld()
  await grantLot(world, 100n)
  const known = await requestOf(world, [funding(15n), funding(3n, { balanceClass: 'direct', currency: 'USD' })])
  const [first] = known.fundings
  if (!first) throw new Error('it has fundings')
  const later = funding(1n)
  expect(await openEnvelope(world.db, world.scope, known)).toBeUndefined()
  expect(await topUp(world, known.envelopeId, later)).toBeUndefined()
  const before = await everything(world)
  const open = async (change: Partial<typeof known>) =>
    (await openEnvelope(world.db, world.scope, { ...known, ...change }))?.reason
  for (const change of [
    { runId: newId(Date.now()) },
    { apiKeyId: await makeKey(world.db, world.scope) },
    { fundings: [] },
    { fundings: [first] },
    { fundings: [later] },
    { fundings: [...known.fundings, funding(1n)] },
    { fundings: [{ ...first, amount: 14n }, ...known.fundings.slice(1)] },
    { fundings: [funding(15n), ...known.fundings.slice(1)] },
  ])
    expect(await open(change)).toBe('envelope_exists')
  const envelopeId = newId(Date.now())
  expect(await open({ envelopeId })).toBe('mismatch')
  expect(await open({ envelopeId, fundings: [later] })).toBe('mismatch')
  expect(await open({ envelopeId, fundings: [funding(1n), { ...funding(1n), id: first.id }] })).toBe('mismatch')
  expect(await everything(world)).toEqual(before)
  await expectLotsTrue(world)
})

async function requestOf(world: World, fundings: readonly Funding[]) {
  const apiKeyId = await makeKey(world.db, world.scope)
  return { envelopeId: newId(Date.now()), runId: newId(Date.now()), apiKeyId, fundings }
}
