import { executeCall } from '#calls/execute.ts'
import { ledgerId } from '#calls/charge.ts'
import { sweepOrphans } from '#calls/lost.ts'
import { reconcile, voidLost } from '#calls/reconcile.ts'
import { priceInForce } from '#db/price.ts'
import { correct, type Correction } from '#db/correction.ts'
import { post } from '#db/hold.ts'
import { newId } from '#db/ids.ts'
import { storedPrices } from '#contracts/stored.ts'
import { endLease } from '#db/instance.ts'
import { readReport } from '#db/report.ts'
import { sql } from 'kysely'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { useApi } from '../support/api.ts'
import { createLedgerWorld, type Purse } from '../support/envelopes.ts'
import { expectVerified, QUESTION, withOpenAttempt } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { forever, holdOf, openCalls, pocketOf, startProcess, type StormCall } from '../support/storm.ts'
import { asAdmin } from '../support/wallets.ts'
import { createWorld, type World } from '../support/world.ts'

async function organisationOf(world: World): Promise<string> {
  const row = await world.db.selectFrom('organisation').select('id').executeTakeFirstOrThrow()
  return row.id
}

test('of many reconcilers at once one resolves what a dead process left, and a living owner is let be', async () => {
  const world = await createWorld()
  const { engine, attempt, run, controller, call } = await withOpenAttempt(world)
  const request = { organisationId: await organisationOf(world), policy: 'maximum', by: 'a test' } as const
  expect(await reconcile(world.db, request)).toEqual({ resolved: [], unresolved: [] })
  const alive = { callId: attempt.callId, number: attempt.number, by: 'a test', reason: 'the provider says so' }
  expect(await voidLost(world.db, world.scope, alive)).toBe('owner_alive')
  await engine.instance.stop()
  const foreign = await reconcile(world.db, { ...request, organisationId: newId(Date.now()) })
  expect(foreign.resolved).toEqual([])
  const answers = await Promise.all(Array.from({ length: 6 }, () => reconcile(world.db, request)))
  const resolved = answers.flatMap((answer) => answer.resolved)
  expect(resolved).toMatchObject([{ callId: attempt.callId, charged: attempt.held, certainty: 'unknown' }])
  const row = await world.db.selectFrom('attempt').select(['outcome', 'detail']).executeTakeFirstOrThrow()
  expect(row).toMatchObject({ outcome: 'lost', detail: { resolvedBy: 'a test', basis: 'the whole hold' } })
  const report = await readReport(world.db, world.scope, run.runId)
  expect(report?.totals[0]?.unknown).toEqual(report?.totals[0]?.spent)
  controller.abort()
  await call.catch(() => {})
  await expectVerified(world)
})

test.each([
  { who: 'by hand', resolve: reconcileByHand },
  { who: 'by itself', resolve: sweepOnce },
])('an attempt that cannot be resolved is told, and keeps no other from being resolved $who', async ({ resolve }) => {
  const world = await createLedgerWorld()
  await world.deposit('EUR', 1_000n)
  const [broken, sound] = [await world.openRoot(100n), await world.openRoot(100n)]
  const stuck = await world.hold(broken, 10n)
  const standing = await world.get(await world.standing(world.keyId, { currency: 'EUR' }), 100n)
  const others = [standing.item, await world.hold(sound, 20n)]
  await moveClock(world, broken, '1 hour')
  await sql`update instance set lease_until = clock_timestamp() - interval '1 hour'`.execute(world.db)
  const told = await resolve(world)
  expect(told).toEqual([expect.stringContaining('clock')])
  const open = () => world.db.selectFrom('attempt').select('call_id').where('state', '=', 'sent').execute()
  expect(await open()).toEqual([{ call_id: stuck.callId }])
  const { rows } = await sql`
    select call_id, amount, certainty from transfer where code = 'capture' order by amount`.execute(world.db)
  expect(rows).toEqual(
    others.toReversed().map(({ callId, amount }) => ({ call_id: callId, amount, certainty: 'unknown' })),
  )
  await moveClock(world, broken, '0')
  expect(await resolve(world)).toEqual([])
  expect(await open()).toEqual([])
  await expectVerified(world)
})

test('reconciling by hand resolves all there is, however much that is', async () => {
  const world = await createWorld()
  const { db, instanceId } = await startProcess(world.database.appUrl)
  const run = await world.openRun({ direct: 1_000n })
  const pocket = await pocketOf(db, world.scope, { ...run, balanceClass: 'direct' })
  const calls = await openCalls(db, world.scope, { ...run, count: 501 })
  await post(db, { instanceId, settles: [], reserves: calls.map((call) => ({ pocket, item: holdOf(call, 1n) })) })
  await endLease(db, instanceId)
  const request = { organisationId: await organisationOf(world), policy: 'maximum', by: 'a test' } as const
  expect((await reconcile(world.db, request)).resolved).toHaveLength(501)
  await expectVerified(world)
})

test('a void by hand and the truth that is being booked at the same moment leave the truth', async () => {
  const { world, lost, pocket, organisationId } = await withLostCall(1_000n)
  const admin = new pg.Client(world.database.adminUrl)
  await admin.connect()
  onTestFinished(() => admin.end())
  await reconcile(world.db, { organisationId, policy: 'maximum', by: 'a test' })
  const usage = { input: 1, cachedInput: 0, output: 0 }
  await admin.query('begin')
  await admin.query('select from account where id = $1 for no key update', [pocket.accountId])
  const booked = correct(world.db, pocket, lateTruth(lost, { amount: 400n, certainty: 'billed', usage }))
  await untilWaiting(world, 1)
  const request = { callId: lost.callId, number: 1, by: 'key 7', reason: 'no such request there' }
  const voided = voidLost(world.db, world.scope, request)
  await untilWaiting(world, 2)
  await admin.query('rollback')
  expect([await booked, await voided]).toEqual(['corrected', 'not_lost'])
  expect(await voidLost(world.db, world.scope, request)).toBe('not_lost')
  const account = world.db.selectFrom('account').select(['posted_credit', 'posted_debit'])
  const has = await account.where('id', '=', pocket.accountId).executeTakeFirstOrThrow()
  expect(has.posted_credit - has.posted_debit).toBe(1_000n - 400n)
  await expectVerified(world)
})

test('a void by hand takes back what an estimate left as a debt, and is no replay of it', async () => {
  const { world, lost, pocket, organisationId, process } = await withLostCall(100n)
  await reconcile(world.db, { organisationId, policy: 'maximum', by: 'a test' })
  const debt = async () => {
    const { rows } = await sql<{ debt: bigint }>`
      select project_debt(${world.scope.projectId}, 'USD') as debt`.execute(world.db)
    return rows[0]?.debt
  }
  expect(await correct(process.db, pocket, lateTruth(lost, { amount: 130n, certainty: 'estimated' }))).toBe('corrected')
  expect(await debt()).toBe(30n)
  const request = { callId: lost.callId, number: 1, by: 'key 7', reason: 'no such request there' }
  expect(await voidLost(world.db, world.scope, request)).toBe('voided')
  expect(await voidLost(world.db, world.scope, request)).toBe('replayed')
  expect(await debt()).toBe(0n)
  const account = world.db.selectFrom('account').select(['posted_credit', 'posted_debit'])
  const has = await account.where('id', '=', pocket.accountId).executeTakeFirstOrThrow()
  expect(has.posted_credit - has.posted_debit).toBe(100n)
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

test('by choice a dead process leaves an estimate, with what it rests on, and the books are right', async () => {
  const world = await createWorld()
  const { engine, attempt, run, controller, call } = await withOpenAttempt(world)
  await world.sandbox.control('DELETE', '/faults/sandbox-steady')
  await Promise.all(
    Array.from({ length: 5 }, (_, index) => executeCall(engine, run.request(`more/${index}`, QUESTION))),
  )
  await engine.instance.stop()
  const organisationId = await organisationOf(world)
  const { resolved } = await reconcile(world.db, { organisationId, policy: 'estimate', by: 'a test' })
  const [lost] = resolved
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
  expect(done).toMatchObject({ status: 200, body: { resolved: [], unresolved: [] } })
  const path = `/api/v1/calls/${newId(Date.now())}/attempts/1/void`
  const unknown = await api.ask('POST', path, { key: api.operatorKey, body: { reason: 'so' } })
  expect(unknown.status).toBe(404)
  const unreasoned = await api.ask('POST', path, { key: api.operatorKey, body: { reason: ' ' } })
  expect(unreasoned.status).toBe(400)
})

/** A call whose only attempt is held at 100 nano by a process that is dead. */
async function withLostCall(direct: bigint) {
  const world = await createWorld()
  const run = await world.openRun({ direct })
  const [lost] = await openCalls(world.db, world.scope, { ...run, count: 1 })
  if (!lost) throw new Error('no call was opened')
  const pocket = await pocketOf(world.db, world.scope, { ...run, balanceClass: 'direct' })
  const process = await startProcess(world.database.appUrl)
  const route = { provider: 'sandbox', upstreamModel: 'sandbox-steady', currency: 'USD' }
  const price = await priceInForce(world.db, route)
  const plan = {
    ...route,
    route: 'steady',
    balanceClass: 'direct',
    priceId: price?.id,
    prices: price && storedPrices(price.prices),
  }
  expect((await process.queue.reserve(pocket, holdOf(lost, 100n, { plan }), forever())).verdict).toBe('granted')
  await endLease(world.db, process.instanceId)
  return { world, lost, pocket, process, organisationId: await organisationOf(world) }
}

/** What a late owner says. */
function lateTruth(
  call: StormCall,
  truth: Pick<Correction, 'amount' | 'certainty'> & Partial<Pick<Correction, 'usage'>>,
): Correction {
  const key = { ...call, number: 1 }
  return {
    holdId: ledgerId(key, 'hold'),
    correctionId: ledgerId(key, 'correction'),
    debtId: ledgerId(key, 'correction_debt'),
    tokens: 1n,
    usage: null,
    detail: null,
    answerId: null,
    answer: null,
    ...truth,
  }
}

async function reconcileByHand(world: World): Promise<readonly string[]> {
  const request = { organisationId: await organisationOf(world), policy: 'maximum', by: 'a test' } as const
  return (await reconcile(world.db, request)).unresolved.map(({ message }) => message)
}

async function sweepOnce(world: World): Promise<readonly string[]> {
  const engine = await world.startEngine()
  const failure: unknown = await sweepOrphans(engine).catch((error: unknown) => error)
  if (failure === undefined) return []
  if (!(failure instanceof AggregateError)) throw failure
  return failure.errors.map((error: unknown) => String(error instanceof Error ? error.cause : error))
}

/** Lets a pocket's last movement lie ahead of the database's clock: nothing moves in it then. */
async function moveClock(world: World, { pocket }: Purse, ahead: string): Promise<void> {
  const text = 'update account set moved_at = clock_timestamp() + $2::interval where id = $1'
  await asAdmin(world, text, [pocket.accountId, ahead])
}

function untilWaiting(world: World, count: number) {
  const waiting = sql`select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
  return pollUntil(async () => (await waiting.execute(world.db)).rows.length >= count, {
    what: `${count} waiting for a lock`,
  })
}
