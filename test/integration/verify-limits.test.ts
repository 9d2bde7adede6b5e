import { correct } from '#db/correction.ts'
import { newId } from '#db/ids.ts'
import { changeLimit } from '#db/limit.ts'
import { expect, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { createLimitWorld } from '../support/limits.ts'
import { wrongChecks } from '../support/seals.ts'

test.each([
  { what: 'that has used more', change: 'update lease set used = used + 1', check: 'leases', says: 'has used 8' },
  { what: 'that holds less', change: 'update lease set held = held - 1', check: 'leases', says: 'its attempts hold' },
  {
    what: 'of another envelope',
    change: 'update lease set envelope_id = uuidv7()',
    check: 'lent',
    says: 'names a lease of another envelope',
  },
  { what: 'that is gone', change: 'delete from lease', check: 'lent', says: 'names a lease that never was' },
  {
    what: 'of a window that has used',
    change: 'update limit_window set used = used + 1',
    check: 'limits',
    says: 'has used',
  },
])('verify finds a lease $what', async ({ change, check, says }) => {
  const world = await createLimitWorld()
  await world.limit({ measure: 'money', currency: 'USD', cap: 100n })
  const envelope = await world.openEnvelope()
  const [first, second] = [await envelope.hold(), await envelope.hold()]
  expect([first.verdict, second.verdict]).toEqual(['granted', 'granted'])
  await envelope.settle(first, { amount: 7n, tokens: 60n })
  expect(await wrongChecks(world)).toEqual({})
  await asAdmin(world, async (client) => {
    await client.query('set session_replication_role = replica')
    await client.query(change)
  })
  expect((await wrongChecks(world))[check]).toContain(says)
})

test('a lowered cap that was used up before, and truth that comes later, are not wrong', async () => {
  const world = await createLimitWorld()
  const limitId = await world.limit({ measure: 'money', currency: 'USD', cap: 100n })
  const envelope = await world.openEnvelope()
  const held = await envelope.hold({ amount: 60n })
  await envelope.settle(held, { amount: 50n, tokens: 60n })
  const caller = { keyId: newId(Date.now()), organisationId: world.organisationId, projectId: null }
  expect(await changeLimit(world.db, caller, { limitId, cap: 10n })).toBe('changed')
  expect(await wrongChecks(world)).toEqual({})
  const truth = { holdId: held.item.holdId, correctionId: newId(Date.now()), debtId: newId(Date.now()), tokens: null }
  const nothing = { usage: null, detail: null, answerId: null, answer: null }
  const pocket = { projectId: world.scope.projectId, accountId: envelope.accountId }
  const correction = { ...truth, ...nothing, amount: 45n, certainty: 'estimated' } as const
  expect(await correct(world.db, pocket, correction)).toBe('corrected')
  expect(await wrongChecks(world)).toEqual({})
})
