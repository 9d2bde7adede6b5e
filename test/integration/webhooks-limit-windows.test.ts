import { correct } from '#db/correction.ts'
import { foldLeases } from '#db/lease.ts'
import { retireLimit } from '#db/limit.ts'
import { fanOut } from '#db/webhook-fan-out.ts'
import { changeWebhook } from '#db/webhook.ts'
import { expect, test } from 'vitest'
import { change, figuresOf, operatorOf, spend, toldOf, useHook } from '../support/limit-webhooks.ts'
import { createLimitWorld, type LimitWorld } from '../support/limits.ts'
import { truthOf } from '../support/late-truth.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { neighbourOf } from '../support/world.ts'

const HOURLY = { period: 'hour', cap: 100n } as const
const LIFELONG = { period: 'life', cap: 100n } as const

/** Lets hours pass for a limit, or for a webhook, or for both: what there is of them was so many hours earlier. */
async function passHours(
  { admin }: LimitWorld,
  of: { readonly limitId?: string; readonly webhookId?: string },
  hours = 1,
): Promise<void> {
  const { limitId, webhookId } = of
  const [earlier, limit] = [`- interval '${hours} hours'`, `where limit_id = '${limitId}'`]
  await admin.query('begin')
  // Changes of limits are never changed otherwise.
  await admin.query('set local session_replication_role = replica')
  if (limitId !== undefined) {
    for (const table of ['lease', 'folded_lease']) {
      await admin.query(`update ${table} set starts_at = starts_at ${earlier} ${limit}`)
    }
    await admin.query(`update limit_window set starts_at = starts_at ${earlier}, ends_at = ends_at ${earlier} ${limit}`)
    await admin.query(`update limit_change set recorded_at = recorded_at ${earlier} ${limit}`)
  }
  await admin.query(`update webhook set thresholds_since = thresholds_since ${earlier} where id = $1`, [
    webhookId ?? null,
  ])
  await admin.query('commit')
}

test('what was crossed in the last moments of a window is told, and once more when it is crossed in the next', async () => {
  const world = await createLimitWorld()
  const webhookId = await useHook(world)
  const limitId = await world.limit({ ...HOURLY, thresholds: [80, 100] })
  const envelope = await world.openEnvelope()
  await spend(envelope, 79n)
  expect(await figuresOf(world, webhookId)).toEqual([])
  await spend(envelope, 6n)
  await passHours(world, { limitId, webhookId })
  const [first] = await toldOf(world, webhookId)
  expect(await figuresOf(world, webhookId)).toEqual([[80, 85, 100]])
  await spend(envelope, 90n)
  const [, second] = await toldOf(world, webhookId)
  expect(await figuresOf(world, webhookId)).toEqual([
    [80, 85, 100],
    [80, 90, 100],
  ])
  expect(second?.window.startsAt).toBe(first?.window.resetsAt)
  expect(Date.parse(second?.window.resetsAt ?? '')).toBeGreaterThan(Date.now())
  await expectVerified(world)
})

test('of a window that was over an hour ago, or before there were thresholds, or the webhook, nothing is told', async () => {
  const world = await createLimitWorld()
  const webhookId = await useHook(world)
  const envelope = await world.openEnvelope()
  const limits = {
    long: await world.limit({ ...HOURLY, thresholds: [50] }),
    bare: await world.limit(HOURLY),
    raised: await world.limit({ ...HOURLY, thresholds: [90] }),
  }
  await spend(envelope, 60n)
  await passHours(world, { webhookId }, 9)
  await passHours(world, { limitId: limits.long }, 2)
  for (const limitId of [limits.bare, limits.raised]) await passHours(world, { limitId })
  await change(world, { limitId: limits.bare, thresholds: [50] })
  // Of the window that is over 100 was the cap.
  await change(world, { limitId: limits.raised, cap: 60n })
  expect(await toldOf(world, webhookId)).toEqual([])
  const late = await useHook(world)
  const another = await useHook(world, ['state'])
  const own = await world.limit({ ...HOURLY, thresholds: [10] })
  await spend(envelope, 20n)
  await passHours(world, { limitId: own })
  const asked = { id: another, url: 'https://example.org/', topics: ['state', 'threshold'], lowBalance: [] } as const
  await world.db.transaction().execute((trx) => changeWebhook(trx, world.scope, asked))
  expect(await toldOf(world, late)).toEqual([])
  expect(await toldOf(world, another)).toEqual([])
  // It has been there for hours.
  expect(await figuresOf(world, webhookId)).toEqual([[10, 20, 100]])
})

test('a lowered cap crosses, a raised one takes nothing back, and one of nothing tells nothing', async () => {
  const world = await createLimitWorld()
  const webhookId = await useHook(world)
  const limitId = await world.limit({ ...LIFELONG, thresholds: [50, 80] })
  const envelope = await world.openEnvelope()
  await spend(envelope, 60n)
  const told: (readonly [number, number, number])[] = [[50, 60, 100]]
  expect(await figuresOf(world, webhookId)).toEqual(told)
  await change(world, { limitId, cap: 1_000n })
  expect(await figuresOf(world, webhookId)).toEqual(told)
  await change(world, { limitId, cap: 75n })
  told.push([80, 60, 75])
  expect(await figuresOf(world, webhookId)).toEqual(told)
  await change(world, { limitId, cap: 100n })
  await spend(envelope, 30n)
  expect(await figuresOf(world, webhookId)).toEqual(told)
  await change(world, { limitId, cap: 0n, thresholds: [1, 50, 80, 100] })
  expect(await figuresOf(world, webhookId)).toEqual(told)
  await change(world, { limitId, cap: 91n })
  told.push([1, 90, 91])
  expect(await figuresOf(world, webhookId)).toEqual(told)
  await change(world, { limitId, cap: 90n, thresholds: [80] })
  await change(world, { limitId, thresholds: [100] })
  told.push([100, 90, 90])
  expect(await figuresOf(world, webhookId)).toEqual(told)
  await change(world, { limitId, thresholds: [2] })
  // Of another there is something to tell still.
  await world.limit({ ...LIFELONG, thresholds: [100] })
  expect(await retireLimit(world.db, operatorOf(world), limitId)).toBe('retired')
  expect(await figuresOf(world, webhookId)).toEqual(told)
  await expectVerified(world)
})

test('what is held is not spent; what was folded, or came late, is', async () => {
  const world = await createLimitWorld()
  const webhookId = await useHook(world)
  const limitId = await world.limit({ ...HOURLY, thresholds: [50, 60, 70] })
  const envelope = await world.openEnvelope()
  const held = await envelope.hold({ amount: 100n })
  expect(await toldOf(world, webhookId)).toEqual([])
  await envelope.settle(held, { amount: 55n })
  await passHours(world, { limitId, webhookId })
  expect(await foldLeases(world.db)).toBe(1)
  expect(await figuresOf(world, webhookId)).toEqual([[50, 55, 100]])
  const pocket = { projectId: world.scope.projectId, accountId: envelope.accountId }
  expect(await correct(world.db, pocket, truthOf(held.item, 65n))).toBe('corrected')
  expect(await figuresOf(world, webhookId)).toEqual([
    [50, 55, 100],
    [60, 65, 100],
  ])
  await foldLeases(world.db)
  expect(await toldOf(world, webhookId)).toHaveLength(2)
})

test('limits on a project, a key, a run and a step tell their own project, and no other of the organisation', async () => {
  const world = await createLimitWorld()
  const beside = await neighbourOf(world)
  await world.admin.query('update project set organisation_id = $1', [world.organisationId])
  const webhookId = await useHook(world)
  const foreign = await useHook({ ...world, scope: beside.scope })
  await world.limit({ ...LIFELONG, subjectId: beside.scope.projectId, thresholds: [10] })
  const envelope = await world.openEnvelope()
  const subjects = [
    { scope: 'project', subjectId: world.scope.projectId },
    { scope: 'key', subjectId: envelope.keyId },
    { scope: 'run', subjectId: envelope.runId ?? '' },
    { scope: 'step', subjectId: envelope.keyId, step: 'read' },
    { scope: 'step', subjectId: envelope.keyId, step: 'write' },
  ] as const
  for (const subject of subjects) await world.limit({ ...LIFELONG, ...subject, thresholds: [10] })
  await spend(envelope, 10n)
  const told = await toldOf(world, webhookId)
  const what = told.map(({ scope, subjectId, step }) => ({ scope, subjectId, ...(step !== null && { step }) }))
  expect(what).toHaveLength(4)
  expect(what).toEqual(expect.arrayContaining(subjects.slice(0, 4)))
  expect(await toldOf(world, foreign)).toEqual([])
})

test('many who look at the same time tell it once, and many percentages at once are each told', async () => {
  const world = await createLimitWorld()
  const webhookId = await useHook(world)
  const thresholds = Array.from({ length: 20 }, (_, index) => (index + 1) * 5)
  await world.limit({ ...LIFELONG, thresholds })
  await spend(await world.openEnvelope(), 100n)
  await Promise.all(Array.from({ length: 8 }, () => fanOut(world.db, Date.now())))
  expect((await toldOf(world, webhookId)).map(({ percent }) => percent)).toEqual(thresholds)
})

test('what is very much is told in several turns', async () => {
  const world = await createLimitWorld()
  const webhookId = await useHook(world)
  const thresholds = Array.from({ length: 20 }, (_, index) => index + 1)
  for (let count = 0; count < 26; count += 1) await world.limit({ ...LIFELONG, thresholds })
  await spend(await world.openEnvelope(), 20n)
  expect(await fanOut(world.db, Date.now())).toBe(true)
  const deliveries = () => world.db.selectFrom('webhook_delivery').select('source').distinct().execute()
  expect(await deliveries()).toHaveLength(500)
  expect(await fanOut(world.db, Date.now())).toBe(false)
  expect(await deliveries()).toHaveLength(520)
  expect(await toldOf(world, webhookId)).toHaveLength(520)
})
