import { executeCall } from '#calls/execute.ts'
import { lostCostOf } from '#calls/lost-cost.ts'
import { reconcile, voidLost } from '#calls/reconcile.ts'
import { newId } from '#db/ids.ts'
import { readReport } from '#db/report.ts'
import { expect, test } from 'vitest'
import { useApi } from '../support/api.ts'
import { expectVerified, QUESTION, withOpenAttempt } from '../support/open-attempt.ts'
import { createWorld, type World } from '../support/world.ts'

async function organisationOf(world: World): Promise<string> {
  const row = await world.db.selectFrom('organisation').select('id').executeTakeFirstOrThrow()
  return row.id
}

test('of many reconcilers at once one resolves what a dead process left, and a living owner is let be', async () => {
  const world = await createWorld()
  const { engine, attempt, run, controller, call } = await withOpenAttempt(world)
  const request = { organisationId: await organisationOf(world), policy: 'maximum', by: 'a test' } as const
  expect(await reconcile(world.db, request)).toEqual([])
  const alive = { callId: attempt.callId, number: attempt.number, by: 'a test', reason: 'the provider says so' }
  expect(await voidLost(world.db, world.scope, alive)).toBe('owner_alive')
  await engine.instance.stop()
  const foreign = await reconcile(world.db, { ...request, organisationId: newId(Date.now()) })
  expect(foreign).toEqual([])
  const resolved = (await Promise.all(Array.from({ length: 6 }, () => reconcile(world.db, request)))).flat()
  expect(resolved).toMatchObject([{ callId: attempt.callId, charged: attempt.held, certainty: 'unknown' }])
  const row = await world.db.selectFrom('attempt').select(['outcome', 'detail']).executeTakeFirstOrThrow()
  expect(row).toMatchObject({ outcome: 'lost', detail: { resolvedBy: 'a test', basis: 'the whole hold' } })
  const report = await readReport(world.db, world.scope, run.runId)
  expect(report?.totals[0]?.unknown).toEqual(report?.totals[0]?.spent)
  controller.abort()
  await call.catch(() => {})
  await expectVerified(world)
})

test('a lost cost is taken back once, by hand, with the reason beside it', async () => {
  const world = await createWorld()
  const { engine, attempt, run, controller, call } = await withOpenAttempt(world)
  const organisationId = await organisationOf(world)
  await engine.instance.stop()
  await reconcile(world.db, { organisationId, policy: 'maximum', by: 'a test' })
  const request = { callId: attempt.callId, number: attempt.number, by: 'key 7', reason: 'no such request there' }
  const foreign = { projectId: newId(Date.now()) }
  expect(await voidLost(world.db, foreign, request)).toBe('unknown')
  const verdicts = await Promise.all(Array.from({ length: 4 }, () => voidLost(world.db, world.scope, request)))
  expect(verdicts.toSorted()).toEqual(['replayed', 'replayed', 'replayed', 'voided'])
  const report = await readReport(world.db, world.scope, run.runId)
  expect(report?.totals[0]?.spent.amount).toBe('0.000000')
  expect(report?.calls[0]?.attempts[0]?.corrected.amount).toMatch(/^-/)
  const row = await world.db.selectFrom('attempt').select('detail').executeTakeFirstOrThrow()
  expect(row.detail).toMatchObject({ voidedBy: 'key 7', voidedBecause: 'no such request there' })
  controller.abort()
  await call.catch(() => {})
  await expectVerified(world)
})

test('an attempt whose cost is known is not taken back', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const { callId } = await executeCall(engine, run.request('one', QUESTION))
  const request = { callId, number: 1, by: 'key 7', reason: 'I do not like it' }
  expect(await voidLost(world.db, world.scope, request)).toBe('not_lost')
  await expectVerified(world)
})

test('a lost attempt is estimated from what was billed beside it, once enough is known', async () => {
  const world = await createWorld()
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const { callId } = await executeCall(engine, run.request('one', QUESTION))
  const lost = { callId, number: 1, held: 1_000n } as const
  expect(await lostCostOf(world.db, world.scope, { ...lost, policy: 'estimate' })).toMatchObject({
    amount: 1_000n,
    certainty: 'unknown',
  })
  await Promise.all(
    Array.from({ length: 5 }, (_, index) => executeCall(engine, run.request(`more/${index}`, QUESTION))),
  )
  const attempts = await world.db.selectFrom('attempt').select(['held']).execute()
  const captures = await world.db.selectFrom('transfer').select('amount').where('code', '=', 'capture').execute()
  const held = attempts.reduce((sum, row) => sum + row.held, 0n)
  const charged = captures.reduce((sum, row) => sum + row.amount, 0n)
  const estimate = await lostCostOf(world.db, world.scope, { ...lost, policy: 'estimate' })
  expect(estimate).toMatchObject({ amount: (1_000n * charged + held - 1n) / held, certainty: 'estimated' })
  expect(await lostCostOf(world.db, world.scope, { ...lost, policy: 'maximum' })).toMatchObject({ amount: 1_000n })
})

test('by choice a dead process leaves an estimate, with what it rests on, and the books are right', async () => {
  const world = await createWorld()
  const { engine, attempt, run, controller, call } = await withOpenAttempt(world)
  await world.sandbox.control('DELETE', '/faults/sandbox-steady')
  await Promise.all(
    Array.from({ length: 5 }, (_, index) => executeCall(engine, run.request(`more/${index}`, QUESTION))),
  )
  await engine.instance.stop()
  const organisationId = await organisationOf(world)
  const [lost] = await reconcile(world.db, { organisationId, policy: 'estimate', by: 'a test' })
  expect(lost).toMatchObject({ callId: attempt.callId, certainty: 'estimated' })
  expect(lost?.charged).toBeLessThan(attempt.held)
  const row = await world.db
    .selectFrom('attempt')
    .select(['outcome', 'detail'])
    .where('call_id', '=', attempt.callId)
    .executeTakeFirstOrThrow()
  expect(row).toMatchObject({ outcome: 'lost', detail: { basis: expect.stringContaining('5 billed attempts') } })
  const report = await readReport(world.db, world.scope, run.runId)
  expect(report?.calls.find(({ id }) => id === attempt.callId)?.attempts[0]).toMatchObject({ certainty: 'estimated' })
  controller.abort()
  await call.catch(() => {})
  await expectVerified(world)
})

test('what a dead process left open is voided by hand, and what its owner says later is booked', async () => {
  const world = await createWorld()
  const { engine, attempt, run, controller, call } = await withOpenAttempt(world)
  await engine.instance.stop()
  const request = { callId: attempt.callId, number: attempt.number, by: 'key 7', reason: 'no such request there' }
  const verdicts = await Promise.all(Array.from({ length: 4 }, () => voidLost(world.db, world.scope, request)))
  expect(verdicts.toSorted()).toEqual(['replayed', 'replayed', 'replayed', 'voided'])
  const report = await readReport(world.db, world.scope, run.runId)
  expect(report?.totals[0]?.spent.amount).toBe('0.000000')
  const row = await world.db.selectFrom('attempt').select(['outcome', 'detail']).executeTakeFirstOrThrow()
  expect(row).toMatchObject({ outcome: 'lost', detail: { voidedBy: 'key 7' } })
  controller.abort()
  expect(await call).toMatchObject({ kind: 'failed' })
  const later = await readReport(world.db, world.scope, run.runId)
  expect(later?.calls[0]?.attempts[0]).toMatchObject({ certainty: 'estimated' })
  expect(later?.totals[0]?.spent.amount).not.toBe('0.000000')
  await expectVerified(world)
})

test('operators reconcile by hand; what does not exist is not found, and nothing is reconciled twice', async () => {
  const api = await useApi()
  const done = await api.ask('POST', '/api/v1/reconciliations', { key: api.operatorKey })
  expect(done).toMatchObject({ status: 200, body: { resolved: [] } })
  const path = `/api/v1/calls/${newId(Date.now())}/attempts/1/void`
  const unknown = await api.ask('POST', path, { key: api.operatorKey, body: { reason: 'so' } })
  expect(unknown.status).toBe(404)
  const unreasoned = await api.ask('POST', path, { key: api.operatorKey, body: { reason: ' ' } })
  expect(unreasoned.status).toBe(400)
})
