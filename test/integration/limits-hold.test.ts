import { changeLimit, getLimit, listLimits, retireLimit } from '#db/limit.ts'
import { openChild, standingPocket } from '#db/envelope.ts'
import { newId } from '#db/ids.ts'
import { limitUsage } from '#db/limit-usage.ts'
import { describe, expect, test } from 'vitest'
import {
  createLimitWorld,
  impatient,
  refusalEvents,
  refusalOf,
  windowOf,
  type LimitWorld,
} from '#test/support/limits.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'

const operator = (world: LimitWorld) => ({
  keyId: newId(Date.now()),
  organisationId: world.organisationId,
  projectId: null,
})

/** The window must not end between two steps. */
async function awayFromTheEndOfAMinute() {
  await pollUntil(() => new Date().getSeconds() < 50, { what: 'a new minute', deadlineMs: 15_000 })
}

describe('every measure counts what it says, for what was held and for what was used', () => {
  test.each([
    { measure: 'money', currency: 'USD', cap: 25n, used: 7n },
    { measure: 'tokens', currency: null, cap: 250n, used: 60n },
    { measure: 'calls', currency: null, cap: 2n, used: 1n },
  ] as const)('$measure', async ({ used, ...change }) => {
    const world = await createLimitWorld()
    const limitId = await world.limit(change)
    const envelope = await world.openEnvelope()
    const first = await envelope.hold()
    const second = await envelope.hold()
    expect([first.verdict, second.verdict]).toEqual(['granted', 'granted'])
    expect((await envelope.hold({}, impatient())).verdict).toBe('busy')
    await envelope.settle(first, { amount: 7n, tokens: 60n })
    await envelope.settle(second, { amount: null })
    expect(await windowOf(world, limitId)).toMatchObject({ used, held: 0n })
    const [window] = await world.db.selectFrom('limit_window').selectAll().execute()
    expect(await limitUsage(world.db, limitId, { startsAt: window?.starts_at ?? new Date(0) })).toEqual({
      spent: used,
      held: 0n,
    })
    expect((await envelope.hold()).verdict).toBe('granted')
    await expectVerified(world)
  })
})

test('tokens that nobody counted are all that were held', async () => {
  const world = await createLimitWorld()
  const limitId = await world.limit({ measure: 'tokens', currency: null, cap: 100n })
  const envelope = await world.openEnvelope()
  const held = await envelope.hold()
  await envelope.settle(held, { amount: 3n })
  expect(await windowOf(world, limitId)).toMatchObject({ used: 100n, held: 0n })
  const refused = await envelope.hold({ tokens: 1n })
  expect(refused.verdict).toBe('exhausted')
  expect(await refusalOf(world, refused)).toMatchObject({ measure: 'tokens', asked: 1n, free: 0n })
  await expectVerified(world)
})

test.each(['life', 'minute', 'hour', 'day', 'week', 'month'] as const)(
  'a limit for a %s is refused with its facts and when it resets, and the refusal is kept',
  async (period) => {
    const world = await createLimitWorld()
    const limitId = await world.limit({ period, timeZone: 'Asia/Kathmandu', cap: 15n })
    const envelope = await world.openEnvelope()
    if (period === 'minute') await awayFromTheEndOfAMinute()
    const held = await envelope.hold()
    await envelope.settle(held, { amount: 9n })
    const refused = await envelope.hold()
    expect(refused.verdict).toBe('exhausted')
    const refusal = await refusalOf(world, refused)
    expect(refusal).toMatchObject({
      bound: 'limit',
      limit_id: limitId,
      measure: 'money',
      cap: 15n,
      spent: 9n,
      held: 0n,
      asked: 10n,
      free: 6n,
    })
    if (period === 'life') expect(refusal.resets_at).toBeNull()
    else expect(refusal.resets_at?.getTime()).toBeGreaterThan(Date.now())
    const events = await refusalEvents(world, envelope.runId)
    expect(events).toMatchObject([{ callId: refused.item.callId, askedNano: '10', freeNano: '6', limit: { limitId } }])
    await expectVerified(world)
  },
)

test('what is held makes a hold wait, not fail, and the wait ends when it comes back', async () => {
  const world = await createLimitWorld()
  await world.limit({ cap: 10n })
  const envelope = await world.openEnvelope()
  const first = await envelope.hold()
  const waiting = envelope.hold()
  expect((await envelope.hold({}, impatient())).verdict).toBe('busy')
  await envelope.settle(first, { amount: null })
  const second = await waiting
  expect(second.verdict).toBe('granted')
  expect(await world.db.selectFrom('refusal').selectAll().execute()).toEqual([])
  await envelope.settle(second, { amount: 10n })
  expect((await envelope.hold({ amount: 1n })).verdict).toBe('exhausted')
  expect((await envelope.hold({ amount: 0n })).verdict).toBe('granted')
  await expectVerified(world)
})

test('a cap of zero lets nothing through, and nothing is written but the refusal', async () => {
  const world = await createLimitWorld()
  await world.limit({ cap: 0n })
  await world.limit({ measure: 'calls', currency: null, cap: 5n })
  const envelope = await world.openEnvelope()
  const refused = await envelope.hold({ amount: 1n })
  expect(refused.verdict).toBe('exhausted')
  expect(await refusalOf(world, refused)).toMatchObject({ cap: 0n, spent: 0n, held: 0n, asked: 1n, free: 0n })
  expect(await world.db.selectFrom('lease').selectAll().execute()).toEqual([])
  expect((await envelope.hold({ amount: 0n })).verdict).toBe('granted')
  await expectVerified(world)
})

test('a limit binds its subject and its currency, and a step limit the calls of its step', async () => {
  const world = await createLimitWorld()
  const envelope = await world.openEnvelope()
  const other = await world.openEnvelope()
  await world.limit({ scope: 'run', subjectId: envelope.runId ?? '', cap: 0n })
  await world.limit({ scope: 'step', step: 'read', cap: 0n })
  await world.limit({ scope: 'organisation', subjectId: world.organisationId, currency: 'CNY', cap: 0n })
  const asked = [
    await envelope.hold({ path: 'write/1' }),
    await other.hold({ path: 'write/1' }),
    await other.hold({ path: 'reading/1' }),
    await other.hold({ path: 'read' }),
    await other.hold({ path: 'read/1/again' }),
  ]
  expect(asked.map(({ verdict }) => verdict)).toEqual(['exhausted', 'granted', 'granted', 'exhausted', 'exhausted'])
  await expectVerified(world)
})

test('of several limits that a hold exceeds the tightest is named, and of two as tight the one that resets later', async () => {
  const world = await createLimitWorld()
  await world.limit({ measure: 'tokens', currency: null, cap: 90n })
  const tight = await world.limit({ measure: 'calls', currency: null, cap: 0n })
  await world.limit({ cap: 9n })
  await world.limit({ cap: 1_000_000n, period: 'life' })
  const envelope = await world.openEnvelope()
  expect(await refusalOf(world, await envelope.hold())).toMatchObject({ limit_id: tight, asked: 1n, free: 0n })
  const later = await world.limit({ cap: 0n, period: 'life' })
  expect(await refusalOf(world, await envelope.hold())).toMatchObject({ limit_id: later, resets_at: null })
  expect(await world.db.selectFrom('lease').selectAll().execute()).toEqual([])
})

test('a limit set while calls run binds the next hold, and one that is retired binds none', async () => {
  const world = await createLimitWorld()
  const envelope = await world.openEnvelope()
  const before = await envelope.hold()
  const limitId = await world.limit({ cap: 9n })
  expect((await envelope.hold()).verdict).toBe('exhausted')
  await envelope.settle(before, { amount: 10n })
  expect(await windowOf(world, limitId)).toMatchObject({ used: 0n })
  expect(await retireLimit(world.db, operator(world), limitId)).toBe('retired')
  expect(await retireLimit(world.db, operator(world), limitId)).toBe('retired')
  expect((await envelope.hold()).verdict).toBe('granted')
  expect(await changeLimit(world.db, operator(world), { limitId, cap: 5n })).toBe('retired')
  expect(await world.db.selectFrom('limit_change').select(['change', 'cap']).orderBy('id').execute()).toEqual([
    { change: 'set', cap: 9n },
    { change: 'retire', cap: 9n },
  ])
  await expectVerified(world)
})

test('a limit that cannot be read refuses: nothing is held', async () => {
  const world = await createLimitWorld()
  const limitId = await world.limit({ cap: 1_000n })
  const envelope = await world.openEnvelope()
  await world.admin.query("update usage_limit set time_zone = 'Nowhere/Land' where id = $1", [limitId])
  await expect(envelope.hold()).rejects.toThrow('Nowhere/Land')
  expect(await world.db.selectFrom('attempt').selectAll().execute()).toEqual([])
  await world.admin.query("update usage_limit set time_zone = 'UTC' where id = $1", [limitId])
  expect((await envelope.hold()).verdict).toBe('granted')
  await expectVerified(world)
})

test('a limit shows its window of now, and only to its own tenant', async () => {
  const world = await createLimitWorld()
  const envelope = await world.openEnvelope()
  const nothing = world.limit({ scope: 'key', subjectId: newId(Date.now()), cap: 100n })
  await expect(nothing).rejects.toThrow('unknown_subject')
  const own = await world.limit({ scope: 'run', subjectId: envelope.runId ?? '', cap: 100n })
  await envelope.settle(await envelope.hold(), { amount: 4n })
  await envelope.hold()
  const sight = { organisationId: world.organisationId, projectId: world.scope.projectId }
  expect(await getLimit(world.db, sight, own)).toMatchObject({ id: own, spent: 4n, held: 10n, leased: 40n, cap: 100n })
  expect(
    await listLimits(world.db, sight, { filter: {}, page: { limit: 10, order: 'desc', after: undefined } }),
  ).toHaveLength(1)
  const stranger = { ...sight, projectId: newId(Date.now()) }
  expect(await getLimit(world.db, stranger, own)).toBeUndefined()
  expect(
    await listLimits(world.db, stranger, { filter: {}, page: { limit: 10, order: 'desc', after: undefined } }),
  ).toEqual([])
})

test("a run's limit binds the calls of its child runs, and a key's those of its runs and of its standing envelope", async () => {
  const world = await createLimitWorld()
  const keyId = newId(Date.now())
  await world.db
    .insertInto('api_key')
    .values({
      id: keyId,
      organisation_id: world.organisationId,
      project_id: world.scope.projectId,
      name: 'own',
      hint: 'own',
      hash: Buffer.from(keyId),
      revoked_at: null,
    })
    .execute()
  const parent = await world.openEnvelope()
  const child = { id: newId(Date.now()), runId: newId(Date.now()), keyId: parent.keyId }
  const carving = { id: newId(Date.now()), balanceClass: 'direct', currency: 'USD', amount: 1_000n, cap: null } as const
  const opened = await openChild(world.db, world.scope, {
    parentId: parent.id,
    envelopeId: child.id,
    runId: child.runId,
    kind: 'child',
    carvings: [carving],
  })
  expect(opened).toBeUndefined()
  const standing = await standingPocket(world.db, world.scope, { keyId, balanceClass: 'direct', currency: 'USD' })
  if (!standing.ok) throw new Error(standing.reason)
  const onRun = await world.limit({ scope: 'run', subjectId: parent.runId ?? '', cap: 10n })
  const onKey = await world.limit({ scope: 'key', subjectId: keyId, cap: 10n })
  const below = await world.callsOf(child)
  const own = await world.callsOf({ id: standing.envelopeId, runId: null, keyId })
  for (const [envelope, limitId] of [
    [below, onRun],
    [own, onKey],
  ] as const) {
    const held = await envelope.hold()
    expect(held.verdict).toBe('granted')
    await envelope.settle(held, { amount: 8n })
    const refused = await envelope.hold()
    expect(await refusalOf(world, refused)).toMatchObject({ bound: 'limit', limit_id: limitId, spent: 8n, free: 2n })
  }
  expect((await parent.hold()).verdict).toBe('exhausted')
  await expectVerified(world)
})
