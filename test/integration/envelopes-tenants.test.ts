import { openChild } from '#db/envelope.ts'
import { findMoney, refillLeases } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { openEnvelope } from '#db/ledger.ts'
import { setLimit } from '#db/limit.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { createLedgerWorld, type LedgerWorld } from '../support/envelopes.ts'
import { expectVerified } from '../support/open-attempt.ts'
import { funding } from '../support/wallets.ts'
import { makeKey, neighbourOf } from '../support/world.ts'

/** How much there is of everything that an envelope or a refusal leaves behind. */
async function written({ db }: LedgerWorld): Promise<unknown> {
  const { rows } = await sql`
    select (select count(*) from envelope) as envelopes, (select count(*) from account) as accounts,
      (select count(*) from transfer) as transfers, (select count(*) from refusal) as refusals,
      (select count(*) from event) as events, (select count(*) from lease) as leases`.execute(db)
  return rows
}

test("an envelope is opened for a key of its own project, and for no other project's run", async () => {
  const world = await createLedgerWorld()
  const neighbour = await neighbourOf(world)
  const foreign = await neighbour.openRun({ direct: 10n })
  const before = await written(world)
  const own = { runId: newId(Date.now()), apiKeyId: world.keyId }
  const open = async (change: Partial<typeof own>) => {
    const request = { envelopeId: newId(Date.now()), fundings: [funding(1n, { currency: 'USD' })], ...own, ...change }
    return (await openEnvelope(world.db, world.scope, request))?.reason
  }
  expect(await open({ apiKeyId: newId(Date.now()) })).toBe('unknown_key')
  expect(await open({ apiKeyId: await makeKey(world.db, neighbour.scope) })).toBe('unknown_key')
  expect(await open({ runId: foreign.runId })).toBe('unknown_run')
  expect(await written(world)).toEqual(before)
  expect(await open({})).toBeUndefined()
  await expectVerified(world)
})

test("a child is not opened for another project's run", async () => {
  const world = await createLedgerWorld()
  const foreign = await (await neighbourOf(world)).openRun({ direct: 10n })
  const root = await world.openRoot(100n)
  const before = await written(world)
  const child = { parentId: root.envelopeId, envelopeId: newId(Date.now()), kind: 'child', carvings: [] } as const
  expect(await openChild(world.db, world.scope, { ...child, runId: foreign.runId })).toMatchObject({
    reason: 'unknown_run',
  })
  expect(await written(world)).toEqual(before)
  expect(await openChild(world.db, world.scope, { ...child, runId: newId(Date.now()) })).toBeUndefined()
})

test('money and leases are looked for only for a call of that very envelope, run and project', async () => {
  const world = await createLedgerWorld()
  const [one, two] = [await world.openRoot(100n), await world.openRoot(100n)]
  await world.openBelow(one, { amount: 1n })
  const item = await world.itemOf(two, 90n)
  const own = await world.itemOf(one, 500n)
  await world.db.transaction().execute(async (trx) => {
    const { organisation_id: organisationId } = await trx
      .selectFrom('project')
      .select('organisation_id')
      .executeTakeFirstOrThrow()
    const limit = { id: newId(Date.now()), scope: 'project', subjectId: world.scope.projectId, step: null } as const
    const caps = { measure: 'money', currency: 'USD', period: 'day', timeZone: 'UTC', cap: 10n } as const
    const caller = { keyId: newId(Date.now()), organisationId, projectId: null }
    expect(await setLimit(trx, caller, { ...limit, ...caps })).toBe('set')
  })
  const before = await written(world)
  const asked = [
    { ...item, envelopeId: one.envelopeId, amount: 500n },
    { ...own, runId: newId(Date.now()) },
    { ...own, callId: newId(Date.now()) },
    { ...own, envelopeId: two.envelopeId },
    { ...own, amount: 10n ** 15n + 1n },
  ]
  for (const hold of asked) {
    expect(await findMoney(world.db, one.pocket, hold)).toBe('again')
    expect(await refillLeases(world.db, one.pocket, hold)).toBe('again')
    expect(await world.reserve(one, hold)).toMatch(/^(unknown_call|unknown_pocket|invalid_amount)$/)
  }
  expect(await written(world)).toEqual(before)
  expect(await findMoney(world.db, one.pocket, own)).toBe('exhausted')
  await expectVerified(world)
})

test("a limit binds within its organisation and project only, whatever ids an envelope's subjects name", async () => {
  const world = await createLedgerWorld()
  const neighbour = await neighbourOf(world)
  const { organisation_id: organisationId } = await world.db
    .selectFrom('project')
    .select('organisation_id')
    .where('id', '=', neighbour.scope.projectId)
    .executeTakeFirstOrThrow()
  const keyId = await makeKey(world.db, neighbour.scope)
  const limit = { id: newId(Date.now()), scope: 'key', subjectId: keyId, step: null, measure: 'calls' } as const
  const caller = { keyId: newId(Date.now()), organisationId, projectId: null }
  const caps = { currency: null, period: 'day', timeZone: 'UTC', cap: 1n } as const
  expect(await setLimit(world.db, caller, { ...limit, ...caps })).toBe('set')
  const root = await world.openRoot(100n)
  // A run may be named before it is written, so its id may be anything: here a neighbour's key.
  const child = await world.openBelow(root, { amount: 10n, runId: keyId })
  expect(await refillLeases(world.db, child.pocket, await world.itemOf(child, 1n))).toBe('again')
  expect(await world.db.selectFrom('lease').select('id').execute()).toEqual([])
  await expectVerified(world)
})
