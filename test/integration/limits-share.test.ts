import { newId } from '#db/ids.ts'
import { foldLeases, recallLeases } from '#db/lease.ts'
import { changeLimit } from '#db/limit.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import {
  createLimitWorld,
  impatient,
  refusalOf,
  windowOf,
  type Held,
  type LimitEnvelope,
  type LimitWorld,
} from '#test/support/limits.ts'
import { expectVerified } from '../support/open-attempt.ts'

const setCap = (world: LimitWorld, limitId: string, cap: bigint) =>
  changeLimit(
    world.db,
    { keyId: newId(Date.now()), organisationId: world.organisationId, projectId: null },
    { limitId, cap },
  )

test('two envelopes share a cap to the last unit: none is refused before, and none passes after', async () => {
  const world = await createLimitWorld()
  const limitId = await world.limit({ cap: 100n })
  const [one, two] = [await world.openEnvelope(), await world.openEnvelope()]
  for (let round = 0; round < 5; round += 1) {
    for (const envelope of [one, two]) {
      const held = await envelope.hold()
      expect(held.verdict).toBe('granted')
      const { leased, cap } = await windowOf(world, limitId)
      expect(leased).toBeLessThanOrEqual(cap)
      await envelope.settle(held, { amount: 10n })
    }
  }
  for (const envelope of [one, two]) expect((await envelope.hold({ amount: 1n })).verdict).toBe('exhausted')
  expect(await windowOf(world, limitId)).toMatchObject({ used: 100n, held: 0n, leased: 100n })
  await expectVerified(world)
})

test('the idle part of another lease is recalled before a hold is refused, and what it holds is waited for', async () => {
  const world = await createLimitWorld()
  const limitId = await world.limit({ cap: 100n })
  const [one, two] = [await world.openEnvelope(), await world.openEnvelope()]
  const first = await one.hold({ amount: 20n })
  expect(await windowOf(world, limitId)).toMatchObject({ leased: 80n })
  const second = await two.hold({ amount: 80n })
  expect(second.verdict).toBe('granted')
  expect(await windowOf(world, limitId)).toMatchObject({ held: 100n, leased: 100n })
  expect((await two.hold({ amount: 1n }, impatient())).verdict).toBe('busy')
  await one.settle(first, { amount: null })
  const third = await two.hold({ amount: 20n })
  expect(third.verdict).toBe('granted')
  for (const held of [second, third]) await two.settle(held, { amount: held.item.amount })
  expect((await one.hold({ amount: 1n })).verdict).toBe('exhausted')
  await expectVerified(world)
})

test('leases of several limits are lent all or not at all', async () => {
  const world = await createLimitWorld()
  const wide = await world.limit({ cap: 1_000n })
  const envelope = await world.openEnvelope()
  await world.limit({ scope: 'run', subjectId: envelope.runId ?? '', measure: 'calls', currency: null, cap: 1n })
  const only = await envelope.hold()
  const { leased } = await windowOf(world, wide)
  expect((await envelope.hold({ amount: 500n }, impatient())).verdict).toBe('busy')
  expect(await windowOf(world, wide)).toMatchObject({ leased })
  await envelope.settle(only, { amount: 1n })
  expect((await envelope.hold({ amount: 500n })).verdict).toBe('exhausted')
  expect(await windowOf(world, wide)).toMatchObject({ leased, held: 0n })
  await expectVerified(world)
})

test('a lowered cap stops grants at once and takes back what is idle, and what comes back later too', async () => {
  const world = await createLimitWorld()
  const limitId = await world.limit({ cap: 1_000n })
  const [one, two] = [await world.openEnvelope(), await world.openEnvelope()]
  const first = await one.hold({ amount: 60n })
  await two.settle(await two.hold(), { amount: 5n })
  expect(await setCap(world, limitId, 40n)).toBe('changed')
  expect(await windowOf(world, limitId)).toMatchObject({ used: 5n, held: 60n, leased: 65n })
  expect((await two.hold({ amount: 1n }, impatient())).verdict).toBe('busy')
  await one.settle(first, { amount: 10n })
  expect(await windowOf(world, limitId)).toMatchObject({ used: 15n, held: 0n, leased: 15n })
  const refused = await one.hold({ amount: 26n })
  expect(await refusalOf(world, refused)).toMatchObject({ cap: 40n, spent: 15n, free: 25n })
  expect((await two.hold({ amount: 25n })).verdict).toBe('granted')
  await setCap(world, limitId, 10n)
  const below = await two.hold({ amount: 1n })
  expect(await refusalOf(world, below)).toMatchObject({ cap: 10n, spent: 15n, held: 25n, free: 0n })
  await setCap(world, limitId, 41n)
  expect((await one.hold({ amount: 1n })).verdict).toBe('granted')
  expect(await setCap(world, limitId, -1n)).toBe('invalid_cap')
  expect(await setCap(world, limitId, 10n ** 19n)).toBe('invalid_cap')
  await expect(world.limit({ cap: 10n ** 19n })).rejects.toThrow('invalid_limit')
  expect(await setCap(world, newId(Date.now()), 1n)).toBe('unknown_limit')
  await expectVerified(world)
})

test('what an attempt used beyond its hold is recorded beyond the cap, and taken back from what others have idle', async () => {
  const world = await createLimitWorld()
  const limitId = await world.limit({ cap: 100n })
  const [one, two] = [await world.openEnvelope(), await world.openEnvelope()]
  const idle = await two.hold({ amount: 15n })
  await two.settle(idle, { amount: 5n })
  const busy = await two.hold({ amount: 5n })
  const over = await one.hold()
  expect(await one.settle(over, { amount: 90n })).toBe('settled')
  expect((await windowOf(world, limitId)).leased).toBeGreaterThan(100n)
  await Promise.all([recallLeases(world.db), recallLeases(world.db), recallLeases(world.db)])
  expect(await windowOf(world, limitId)).toMatchObject({ used: 95n, held: 5n, leased: 100n })
  await two.settle(busy, { amount: 5n })
  const refused = await two.hold({ amount: 1n })
  expect(await refusalOf(world, refused)).toMatchObject({ spent: 100n, held: 0n, free: 0n })
  await expectVerified(world)
})

test('what comes back to a window that is overdrawn is not lent again', async () => {
  const world = await createLimitWorld()
  const limitId = await world.limit({ cap: 100n })
  const [one, two] = [await world.openEnvelope(), await world.openEnvelope()]
  const open = await two.hold({ amount: 50n })
  const over = await one.hold()
  await one.settle(over, { amount: 90n })
  await recallLeases(world.db)
  await two.settle(open, { amount: 0n })
  expect(await windowOf(world, limitId)).toMatchObject({ used: 90n, held: 0n, leased: 90n })
  expect((await two.hold({ amount: 11n })).verdict).toBe('exhausted')
  expect((await two.hold()).verdict).toBe('granted')
  await expectVerified(world)
})

test('windows that others hold do not keep the rest of what is overdrawn from being recalled', async () => {
  const world = await createLimitWorld()
  const [one, two] = [await world.openEnvelope(), await world.openEnvelope()]
  const limits = await Promise.all(Array.from({ length: 5 }, () => world.limit({ cap: 100n })))
  await two.settle(await two.hold({ amount: 15n }), { amount: 5n })
  await one.settle(await one.hold(), { amount: 90n })
  for (const free of limits) {
    await world.admin.query('begin')
    await world.admin.query('select from limit_window where limit_id <> $1 for no key update', [free])
    const { rows } = await sql<{ recalled: number }>`select recall_leases(1) as recalled`.execute(world.db)
    await world.admin.query('rollback')
    expect(rows).toEqual([{ recalled: 1 }])
    expect(await windowOf(world, free)).toMatchObject({ used: 95n, leased: 100n })
  }
  await expectVerified(world)
})

/** Everything that must hold of every window while nothing is under way, whoever lent to whom. */
async function expectSound(world: LimitWorld) {
  const { rows } = await sql<{ wrong: unknown }>`
    select u.id, u.cap, w.used + sum(l.leased) as lent from limit_window w join usage_limit u on u.id = w.limit_id
    join lease l on l.limit_id = w.limit_id and l.starts_at = w.starts_at
    group by u.id, w.limit_id, w.starts_at having w.used + sum(l.leased) > u.cap`.execute(world.db)
  expect(rows).toEqual([])
  const found = await world.admin.query(
    'select deadlocks::int from pg_stat_database where datname = current_database()',
  )
  expect(found.rows).toEqual([{ deadlocks: 0 }])
  await expectVerified(world)
}

/** Spends what is left of the limits, one unit at a time in the end. Returns why it stopped. */
async function drain(envelope: LimitEnvelope): Promise<string> {
  for (const amount of [50n, 1n]) {
    for (;;) {
      const held = await envelope.hold({ amount, path: 'write' })
      if (held.verdict === 'granted') await envelope.settle(held, { amount })
      else if (amount === 1n) return held.verdict
      else break
    }
  }
  return 'unreachable'
}

test('sixteen processes that refill and recall at once never lend more than a cap, and never wait for each other in a ring', async () => {
  const world = await createLimitWorld()
  const queues = await Promise.all(Array.from({ length: 16 }, () => world.startProcess(1)))
  const envelopes: LimitEnvelope[] = []
  for (let index = 0; index < 6; index += 1) envelopes.push(await world.openEnvelope())
  const limits = [
    await world.limit({ cap: 1_000n }),
    await world.limit({ scope: 'organisation', subjectId: world.organisationId, cap: 3_500n, period: 'life' }),
    await world.limit({ measure: 'tokens', currency: null, cap: 40_000n, period: 'month' }),
    await world.limit({ measure: 'calls', currency: null, cap: 900n, scope: 'step', step: 'read' }),
  ]
  const tight = limits[0] ?? ''
  const verdicts: string[] = []
  for (let round = 0; round < 6; round += 1) {
    const asking = queues.flatMap((queue, index) =>
      [0, 1, 2].map(async (turn): Promise<readonly [LimitEnvelope, Held]> => {
        const envelope = envelopes[(index + turn * 5 + round) % envelopes.length]
        if (!envelope) throw new Error('no such envelope')
        const ask = { amount: BigInt(5 + ((index * 7 + turn * 3) % 20)), path: turn === 1 ? 'read/1' : 'write', queue }
        return [envelope, await envelope.hold(ask, AbortSignal.timeout(700))]
      }),
    )
    await setCap(world, tight, 800n)
    await Promise.all([foldLeases(world.db), recallLeases(world.db)])
    await setCap(world, tight, 1_000n)
    const held = await Promise.all(asking)
    await expectSound(world)
    verdicts.push(...held.map(([, { verdict }]) => verdict))
    const granted = held.filter(([, { verdict }]) => verdict === 'granted')
    await Promise.all(
      granted.map(([envelope, each], index) => {
        const amount = index % 5 === 0 ? null : (each.item.amount * BigInt(index % 4)) / 3n
        return envelope.settle(each, { amount, tokens: 70n })
      }),
    )
    await expectSound(world)
  }
  expect(verdicts.filter((verdict) => !['busy', 'exhausted', 'granted'].includes(verdict))).toEqual([])
  const drained = await Promise.all(envelopes.map((envelope) => drain(envelope)))
  expect(drained).toEqual(envelopes.map(() => 'exhausted'))
  const { cap, used } = await windowOf(world, tight)
  expect(used).toBe(cap)
  await expectSound(world)
  const refusals = await world.db.selectFrom('refusal').selectAll().execute()
  const cut = refusals.filter(({ cap, spent, asked, free }) => (cap ?? 0n) - (spent ?? 0n) >= asked || free >= asked)
  expect(cut).toEqual([])
}, 60_000)
