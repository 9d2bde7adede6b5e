import { connectDatabase } from '#db/database.ts'
import { correct } from '#db/correction.ts'
import { settle } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { foldLeases } from '#db/lease.ts'
import { limitUsage } from '#db/limit-usage.ts'
import { closeEnvelope, setGate } from '#db/ledger.ts'
import { sql } from 'kysely'
import { describe, expect, onTestFinished, test } from 'vitest'
import { createLimitWorld, refusalOf, windowOf, type LimitWorld } from '#test/support/limits.ts'
import { createTestDatabase } from '#test/support/postgres.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { settlementOf } from '../support/storm.ts'

async function useDatabase() {
  const database = await createTestDatabase()
  const db = connectDatabase({ url: database.ownerUrl, maxConnections: 1 })
  onTestFinished(async () => {
    await db.destroy()
    await database.drop()
  })
  return db
}

const iso = (text: string) => new Date(text).toISOString()

const WINDOWS = [
  // New York, 2026: clocks go forward on 8 March at 07:00Z, and back on 1 November at 06:00Z.
  ['day', 'America/New_York', '2026-03-08T12:00Z', '2026-03-08T05:00Z', '2026-03-09T04:00Z'],
  ['day', 'America/New_York', '2026-11-01T12:00Z', '2026-11-01T04:00Z', '2026-11-02T05:00Z'],
  ['hour', 'America/New_York', '2026-03-08T06:30Z', '2026-03-08T06:00Z', '2026-03-08T07:00Z'],
  ['hour', 'America/New_York', '2026-11-01T05:30Z', '2026-11-01T05:00Z', '2026-11-01T06:00Z'],
  ['hour', 'America/New_York', '2026-11-01T06:30Z', '2026-11-01T06:00Z', '2026-11-01T07:00Z'],
  ['minute', 'America/New_York', '2026-11-01T05:59:30Z', '2026-11-01T05:59Z', '2026-11-01T06:00Z'],
  ['minute', 'America/New_York', '2026-11-01T05:30:30Z', '2026-11-01T05:30Z', '2026-11-01T05:31Z'],
  ['week', 'America/New_York', '2026-11-01T12:00Z', '2026-10-26T04:00Z', '2026-11-02T05:00Z'],
  ['month', 'America/New_York', '2026-11-30T12:00Z', '2026-11-01T04:00Z', '2026-12-01T05:00Z'],
  ['month', 'America/New_York', '2026-03-31T12:00Z', '2026-03-01T05:00Z', '2026-04-01T04:00Z'],
  // Kathmandu is 5:45 ahead, all year.
  ['hour', 'Asia/Kathmandu', '2026-11-01T12:20Z', '2026-11-01T12:15Z', '2026-11-01T13:15Z'],
  ['day', 'Asia/Kathmandu', '2026-11-01T18:14:59Z', '2026-10-31T18:15Z', '2026-11-01T18:15Z'],
  ['day', 'Asia/Kathmandu', '2026-11-01T18:15Z', '2026-11-01T18:15Z', '2026-11-02T18:15Z'],
  ['month', 'UTC', '2028-02-29T23:59Z', '2028-02-01T00:00Z', '2028-03-01T00:00Z'],
  ['life', 'UTC', '2026-11-01T12:00Z', '1970-01-01T00:00Z', null],
] as const

/** Half hours and quarters, clocks that change at midnight, in Ramadan, and on both halves of the earth. */
const AWKWARD_ZONES = [
  'America/New_York',
  'Pacific/Chatham',
  'America/Havana',
  'Asia/Beirut',
  'Asia/Kathmandu',
  'Africa/Casablanca',
]

describe('a window begins and ends on the clock of its time zone', () => {
  test('on and around the changes of a year', async () => {
    const db = await useDatabase()
    for (const [period, timeZone, at, start, end] of WINDOWS) {
      const { rows } = await sql<{ start: Date; end: Date | null }>`
        select s as start, window_end(${period}, ${timeZone}, s) as end
        from window_start(${period}, ${timeZone}, ${at}::timestamptz) s`.execute(db)
      const found = rows.map((row) => [row.start.toISOString(), row.end?.toISOString() ?? null])
      expect([period, timeZone, at, ...found]).toEqual([
        period,
        timeZone,
        at,
        [iso(start), end === null ? null : iso(end)],
      ])
    }
  })

  test('one window ends where the next begins, over the changes of a year in awkward zones', async () => {
    const db = await useDatabase()
    for (const zone of AWKWARD_ZONES) {
      const { rows } = await sql<{ period: string; at: Date }>`
        select period, at
        from unnest(array['hour', 'day', 'week', 'month']) period
        cross join generate_series(timestamptz '2026-01-01 00:10Z', '2027-01-01 00:10Z', '1 hour') at
        cross join lateral (select window_end(period, ${zone}, window_start(period, ${zone}, at)) as ends_at) w
        where ends_at <> window_start(period, ${zone}, ends_at) or ends_at <= at`.execute(db)
      expect([zone, rows]).toEqual([zone, []])
    }
  })
})

/** Makes everything of a limit's window happen one window earlier: the test's way of letting time pass. */
async function passMidnight(world: LimitWorld, limitId: string) {
  await world.admin.query('begin')
  await world.admin.query("update lease set starts_at = starts_at - interval '1 day' where limit_id = $1", [limitId])
  await world.admin.query(
    `update limit_window set starts_at = starts_at - interval '1 day', ends_at = ends_at - interval '1 day'
     where limit_id = $1`,
    [limitId],
  )
  await world.admin.query('commit')
}

async function windowsOf(world: LimitWorld, limitId: string) {
  return world.db
    .selectFrom('limit_window')
    .select(['starts_at', 'used'])
    .where('limit_id', '=', limitId)
    .orderBy('starts_at')
    .execute()
}

test('a hold made before midnight settles in its own window; the new one is whole', async () => {
  const world = await createLimitWorld()
  const limitId = await world.limit({ cap: 10n })
  const envelope = await world.openEnvelope()
  const before = await envelope.hold()
  await passMidnight(world, limitId)
  const after = await envelope.hold()
  expect(after.verdict).toBe('granted')
  expect(await foldLeases(world.db)).toBe(0)
  await envelope.settle(before, { amount: 4n })
  const refused = await envelope.hold({ amount: 11n })
  expect(await refusalOf(world, refused)).toMatchObject({ spent: 0n, held: 10n, free: 0n })
  expect(await foldLeases(world.db)).toBe(1)
  const windows = await windowsOf(world, limitId)
  expect(windows.map(({ used }) => used)).toEqual([4n, 0n])
  const usages = await Promise.all(
    windows.map(({ starts_at }) => limitUsage(world.db, limitId, { startsAt: starts_at })),
  )
  expect(usages).toEqual([
    { spent: 4n, held: 0n },
    { spent: 0n, held: 10n },
  ])
  await expectVerified(world)
})

test('what comes late after a lease was folded goes to its window', async () => {
  const world = await createLimitWorld()
  const money = await world.limit({ cap: 100n })
  const tokens = await world.limit({ cap: 1_000n, measure: 'tokens', currency: null })
  const envelope = await world.openEnvelope()
  const held = await envelope.hold()
  await envelope.settle(held, { amount: 10n })
  for (const limitId of [money, tokens]) await passMidnight(world, limitId)
  expect(await foldLeases(world.db)).toBe(2)
  const truth = (amount: bigint, used: bigint) => ({
    holdId: held.item.holdId,
    correctionId: newId(Date.now()),
    debtId: newId(Date.now()),
    amount,
    tokens: used,
    certainty: 'estimated' as const,
    usage: null,
    detail: null,
    answerId: null,
    answer: null,
  })
  const pocket = { projectId: world.scope.projectId, accountId: envelope.accountId }
  expect(await correct(world.db, pocket, truth(4n, 30n))).toBe('corrected')
  await expectVerified(world)
  expect(await correct(world.db, pocket, truth(25n, 200n))).toBe('corrected')
  await expectVerified(world)
  await Promise.all(Array.from({ length: 4 }, () => foldLeases(world.db)))
  expect((await windowsOf(world, money)).map(({ used }) => used)).toEqual([25n])
  expect((await windowsOf(world, tokens)).map(({ used }) => used)).toEqual([200n])
  await expectVerified(world)
})

test.each([
  ['tokens', { amount: 10n, tokens: 0n }, 50n],
  ['money', { amount: 0n, tokens: 0n }, 5n],
] as const)(
  'an attempt that held no %s and used some counts, though its lease was folded before',
  async (measure, ask, used) => {
    const world = await createLimitWorld()
    const limitId = await world.limit({ measure, currency: measure === 'money' ? 'USD' : null, cap: 1_000n })
    const envelope = await world.openEnvelope()
    const held = await envelope.hold(ask)
    await passMidnight(world, limitId)
    expect(await foldLeases(world.db)).toBe(1)
    const pocket = { projectId: world.scope.projectId, accountId: envelope.accountId }
    const call = { runId: envelope.runId ?? '', envelopeId: envelope.id, callId: held.item.callId }
    const item = { ...settlementOf(call, 5n), holdId: held.item.holdId, tokens: 50n }
    expect((await settle(world.db, pocket, { item, mode: 'owner' })).verdict).toBe('settled')
    await expectVerified(world)
    const [window] = await windowsOf(world, limitId)
    if (!window) throw new Error('there is a window')
    expect(await limitUsage(world.db, limitId, { startsAt: window.starts_at })).toEqual({ spent: used, held: 0n })
    await foldLeases(world.db)
    expect((await windowsOf(world, limitId)).map((each) => each.used)).toEqual([used])
    await expectVerified(world)
  },
)

test('many fold the leases of closed envelopes at once, each of them is folded once, and what they lent is free again', async () => {
  const world = await createLimitWorld()
  const limitId = await world.limit({ cap: 1_000n, period: 'life' })
  for (let index = 0; index < 12; index += 1) {
    const envelope = await world.openEnvelope()
    await envelope.settle(await envelope.hold(), { amount: 6n })
    await setGate(world.db, world.scope, { envelopeId: envelope.id, gate: 'closing', reason: 'test' })
    await closeEnvelope(world.db, world.scope, { envelopeId: envelope.id, reason: 'test' })
  }
  const folded = await Promise.all(Array.from({ length: 6 }, () => foldLeases(world.db)))
  expect(folded.reduce((sum, each) => sum + each, 0) + (await foldLeases(world.db))).toBe(12)
  expect(await windowOf(world, limitId)).toMatchObject({ used: 72n, leased: 72n })
  await expectVerified(world)
})
