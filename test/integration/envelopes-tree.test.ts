import { closeTree, openChild } from '#db/envelope.ts'
import { newId } from '#db/ids.ts'
import { closeEnvelope, setGate, topUpEnvelope } from '#db/ledger.ts'
import { expect, test } from 'vitest'
import { createLedgerWorld, type LedgerWorld, type Purse } from '../support/envelopes.ts'
import { expectVerified } from '../support/open-attempt.ts'

const gate = (world: LedgerWorld, { envelopeId }: Purse, to: 'open' | 'frozen' | 'closing') =>
  setGate(world.db, world.scope, { envelopeId, gate: to, reason: 'test' })

const close = (world: LedgerWorld, { envelopeId }: Purse) =>
  closeEnvelope(world.db, world.scope, { envelopeId, reason: 'test' })

test("a child is carved from its parent's remainder, never more, and what it has left goes back", async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  await world.hold(root, 30n)
  expect(await world.refusalBelow(root, { amount: 71n })).toMatchObject({
    reason: 'parent_short',
    asked: 71n,
    free: 70n,
  })
  const child = await world.openBelow(root, { amount: 70n })
  expect([await world.balance(root), await world.balance(child)]).toEqual([
    [30n, 30n],
    [70n, 0n],
  ])
  await world.settle(child, await world.hold(child, 50n), 20n)
  expect(await close(world, child)).toBe('closed')
  expect(await world.balance(root)).toEqual([80n, 30n])
  await expectVerified(world)
})

test('a child that is refused leaves nothing behind, and one that is asked for again is the same', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const carving = { id: newId(Date.now()), balanceClass: 'direct', currency: 'USD', amount: 60n, cap: null } as const
  const child = { parentId: root.envelopeId, envelopeId: newId(Date.now()), runId: null, kind: 'child' } as const
  const open = (change: object) => openChild(world.db, world.scope, { ...child, carvings: [carving], ...change })
  const reasons = [
    await open({ parentId: newId(Date.now()) }),
    await open({ carvings: [{ ...carving, amount: -1n }] }),
    await open({ carvings: [{ ...carving, amount: 10n ** 15n + 1n }] }),
    await open({ carvings: [{ ...carving, cap: 59n }] }),
    await open({ carvings: [carving, carving] }),
    await open({ carvings: [carving, { ...carving, currency: 'CNY', amount: 0n }] }),
    await open({ carvings: [{ ...carving, amount: 101n }] }),
  ].map((refusal) => refusal?.reason)
  expect(reasons).toEqual([
    'unknown_envelope',
    'invalid_amount',
    'invalid_amount',
    'invalid_amount',
    'invalid_amount',
    'unknown_pocket',
    'parent_short',
  ])
  expect(await world.db.selectFrom('envelope').select('id').where('kind', '=', 'child').execute()).toEqual([])
  expect([await open({}), await open({})]).toEqual([undefined, undefined])
  expect(await world.balance(root)).toEqual([40n, 0n])
  expect(await open({ kind: 'wrap_up' })).toMatchObject({ reason: 'envelope_exists' })
  await gate(world, root, 'closing')
  expect(await world.refusalBelow(root, { amount: 1n })).toMatchObject({ reason: 'envelope_closed' })
  await expectVerified(world)
})

test('a child counts for whom its parent counts, and for its own run', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const runId = newId(Date.now())
  const child = await world.openBelow(root, { amount: 1n, runId })
  const reserve = await world.openBelow(root, { amount: 1n, kind: 'wrap_up' })
  const subjectsOf = async ({ envelopeId }: Purse) =>
    (await world.db.selectFrom('envelope').select('subjects').where('id', '=', envelopeId).executeTakeFirstOrThrow())
      .subjects
  const above = await subjectsOf(root)
  expect(above).toHaveLength(4)
  expect(await subjectsOf(child)).toEqual([...above, runId])
  expect(await subjectsOf(reserve)).toEqual(above)
})

test('an exhausted child takes what it lacks from the remainder above it, over three levels, one movement a hop', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const middle = await world.openBelow(root, { amount: 10n })
  const leaf = await world.openBelow(middle, { amount: 5n })
  const { verdict } = await world.get(leaf, 60n)
  expect(verdict).toBe('granted')
  expect([await world.balance(root), await world.balance(middle), await world.balance(leaf)]).toEqual([
    [40n, 0n],
    [0n, 0n],
    [60n, 60n],
  ])
  const carved = await world.db
    .selectFrom('transfer')
    .select('amount')
    .where('code', '=', 'carve')
    .orderBy('seq')
    .execute()
  expect(carved.map(({ amount }) => amount)).toEqual([10n, 5n, 50n, 55n])
  await expectVerified(world)
})

test('a child never gets more than its cap, at any level', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(1000n)
  const middle = await world.openBelow(root, { amount: 10n, cap: 50n })
  const leaf = await world.openBelow(middle, { cap: 70n })
  expect((await world.get(leaf, 71n)).verdict).toBe('exhausted')
  expect((await world.get(leaf, 51n)).verdict).toBe('exhausted')
  const first = await world.get(leaf, 50n)
  expect(first.verdict).toBe('granted')
  await world.settle(leaf, first.item, 50n)
  expect((await world.get(leaf, 1n)).verdict).toBe('exhausted')
  expect(await world.refusals()).toEqual([
    { bound: 'parent', asked: 71n, free: 50n, cap: null },
    { bound: 'parent', asked: 51n, free: 50n, cap: null },
    { bound: 'parent', asked: 1n, free: 0n, cap: null },
  ])
  const small = await world.openBelow(root, { amount: 3n, cap: 4n })
  expect((await world.get(small, 5n)).verdict).toBe('exhausted')
  expect((await world.refusals()).at(-1)).toEqual({ bound: 'pocket', asked: 5n, free: 4n, cap: 4n })
  expect((await world.get(small, 4n)).verdict).toBe('granted')
  await expectVerified(world)
})

test('a child waits while holds and children of its ancestors would make it fit, and is exhausted when they do not', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const inFlight = await world.hold(root, 40n)
  const child = await world.openBelow(root, { amount: 10n })
  const sibling = await world.openBelow(root, { amount: 50n })
  const item = await world.itemOf(child, 100n)
  expect(await world.reserve(child, item)).toBe('short')
  expect(await world.find(child, item)).toBe('busy')
  expect(await world.refusals()).toEqual([])
  expect((await world.get(child, 101n)).verdict).toBe('exhausted')
  await world.settle(root, inFlight, null)
  expect(await world.find(child, item)).toBe('busy')
  expect(await close(world, sibling)).toBe('closed')
  expect(await world.find(child, item)).toBe('again')
  expect(await world.reserve(child, item)).toBe('granted')
  expect(await world.balance(root)).toEqual([0n, 0n])
  await world.settle(child, item, 99n)
  const late = await world.itemOf(child, 2n)
  expect(await world.find(child, late)).toBe('exhausted')
  expect(await world.find(child, late)).toBe('exhausted')
  expect(await world.refusals()).toEqual([
    { bound: 'parent', asked: 101n, free: 100n, cap: null },
    { bound: 'parent', asked: 2n, free: 1n, cap: null },
  ])
  await expectVerified(world)
})

test('a parent waits for the money of its open children, but not for their wrap-up reserve', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const child = await world.openBelow(root, { amount: 50n })
  const grandchild = await world.openBelow(child, { amount: 20n })
  await world.openBelow(root, { amount: 10n, kind: 'wrap_up' })
  const item = await world.itemOf(root, 90n)
  expect(await world.reserve(root, item)).toBe('short')
  expect(await world.find(root, item)).toBe('busy')
  expect((await world.get(root, 91n)).verdict).toBe('exhausted')
  expect(await world.refusals()).toEqual([{ bound: 'pocket', asked: 91n, free: 90n, cap: null }])
  expect(await close(world, child)).toBe('open_children')
  expect(await close(world, grandchild)).toBe('closed')
  expect(await close(world, child)).toBe('closed')
  expect(await world.reserve(root, item)).toBe('granted')
  await expectVerified(world)
})

test('a child asks through the queue: it gets what there is, and the caller waits for what is out', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const inFlight = await world.hold(root, 80n)
  const child = await world.openBelow(root, { cap: 100n })
  const wait = { signal: new AbortController().signal }
  const small = await world.itemOf(child, 20n)
  expect((await world.queue.reserve(child.pocket, small, wait)).verdict).toBe('granted')
  const waiting = world.queue.reserve(child.pocket, await world.itemOf(child, 60n), wait)
  await world.settle(root, inFlight, 10n)
  await world.settle(child, small, null)
  expect((await waiting).verdict).toBe('granted')
  const refused = await world.queue.reserve(child.pocket, await world.itemOf(child, 91n), wait)
  expect(refused.verdict).toBe('exhausted')
  await expectVerified(world)
})

test('a gate reaches the whole tree, and opening opens what that freeze froze', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const kept = await world.openBelow(root, { amount: 10n })
  const frozen = await world.openBelow(root, { amount: 10n })
  const below = await world.openBelow(frozen, { amount: 5n })
  await gate(world, frozen, 'frozen')
  expect(await gate(world, root, 'frozen')).toBe('frozen')
  const born = await world.openBelow(root, { amount: 10n })
  const all = [root, kept, frozen, below, born]
  const gates = async () => Promise.all(all.map((purse) => world.gateOf(purse)))
  expect(new Set((await gates()).flat())).toEqual(new Set(['frozen']))
  expect(await gate(world, kept, 'open')).toBe('frozen')
  expect(await world.reserve(kept, await world.itemOf(kept, 1n))).toBe('frozen')
  expect(await world.find(kept, await world.itemOf(kept, 99n))).toBe('frozen')
  expect(await gate(world, root, 'open')).toBe('open')
  expect((await gates()).map(([envelope, pocket]) => (envelope === pocket ? envelope : 'torn'))).toEqual([
    'open',
    'open',
    'frozen',
    'frozen',
    'open',
  ])
  expect(await gate(world, frozen, 'open')).toBe('open')
  expect(await world.gateOf(below)).toEqual(['open', 'open'])
  expect(await gate(world, root, 'closing')).toBe('closing')
  expect(new Set((await gates()).flat())).toEqual(new Set(['closing']))
  expect(await gate(world, below, 'open')).toBe('closing')
  await expectVerified(world)
})

test('a stopped run still delivers: its wrap-up reserve alone opens while it is frozen, and the next freeze stops that too', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const reserve = await world.openBelow(root, { amount: 10n, cap: 60n, kind: 'wrap_up' })
  await gate(world, root, 'frozen')
  expect(await world.gateOf(reserve)).toEqual(['frozen', 'frozen'])
  expect(await gate(world, reserve, 'open')).toBe('open')
  expect(await world.gateOf(root)).toEqual(['frozen', 'frozen'])
  expect((await world.get(reserve, 11n)).verdict).toBe('exhausted')
  expect(await world.refusals()).toEqual([{ bound: 'pocket', asked: 11n, free: 10n, cap: 10n }])
  await world.settle(reserve, await world.hold(reserve, 10n), 4n)
  await gate(world, root, 'frozen')
  expect(await world.gateOf(reserve)).toEqual(['frozen', 'frozen'])
  await expectVerified(world)
})

test('neither an overage nor an exhausted parent touches the wrap-up reserve', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const reserve = await world.openBelow(root, { amount: 30n, kind: 'wrap_up' })
  const item = await world.hold(root, 50n)
  expect((await world.get(root, 71n)).verdict).toBe('exhausted')
  await world.settle(root, item, 500n)
  expect([await world.balance(root), await world.balance(reserve)]).toEqual([
    [0n, 0n],
    [30n, 0n],
  ])
  await expectVerified(world)
})

test('a tree closes from its leaves, not while a hold is open, and all that is left is home', async () => {
  const world = await createLedgerWorld()
  const before = await world.walletFree('USD')
  const root = await world.openRoot(100n)
  const child = await world.openBelow(root, { amount: 50n })
  const leaf = await world.openBelow(child, { amount: 20n })
  await world.openBelow(root, { amount: 10n, kind: 'wrap_up' })
  const item = await world.hold(leaf, 20n)
  expect(await close(world, root)).toBe('open_children')
  await gate(world, root, 'closing')
  const closing = () => closeTree(world.db, world.scope, { envelopeId: root.envelopeId, reason: 'test' })
  expect(await closing()).toBe('open_holds')
  expect(await world.gateOf(root)).toEqual(['closing', 'closing'])
  await world.settle(leaf, item, 7n)
  expect(await closing()).toBe('closed')
  expect(await closing()).toBe('closed')
  expect(await world.walletFree('USD')).toBe(before - 7n)
  await world.db.updateTable('run').set({ state: 'failed', finished_at: new Date() }).execute()
  await expectVerified(world)
})

test('a top-up enters at the root', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(10n)
  const child = await world.openBelow(root, { amount: 5n })
  const fundings = [{ id: newId(Date.now()), balanceClass: 'direct', currency: 'USD', amount: 90n } as const]
  const topUp = (to: Purse) => topUpEnvelope(world.db, world.scope, { envelopeId: to.envelopeId, fundings })
  expect(await topUp(child)).toMatchObject({ reason: 'not_root' })
  expect((await world.get(child, 50n)).verdict).toBe('exhausted')
  expect(await topUp(root)).toBeUndefined()
  expect((await world.get(child, 50n)).verdict).toBe('granted')
  await expectVerified(world)
})

test('a tree has a depth that a call can lock', async () => {
  const world = await createLedgerWorld()
  let deepest = await world.openRoot(100n)
  for (let depth = 2; depth <= 8; depth += 1) deepest = await world.openBelow(deepest, { amount: 10n })
  expect(await world.refusalBelow(deepest, { amount: 1n })).toMatchObject({ reason: 'too_deep' })
  expect((await world.get(deepest, 100n)).verdict).toBe('granted')
  await expectVerified(world)
})
