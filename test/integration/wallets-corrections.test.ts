import { executeCall } from '#calls/execute.ts'
import { takeOver } from '#calls/lost.ts'
import { openAttempts } from '#db/call.ts'
import { correct } from '#db/correction.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { truthOf } from '../support/late-truth.ts'
import { pollUntil } from '../support/poll.ts'
import { QUESTION } from '../support/open-attempt.ts'
import { asAdmin, close, expectLotsTrue, freeOf, fund, funding, grantLot, spend } from '../support/wallets.ts'
import { createWorld, requestsSeen, type World } from '../support/world.ts'

test('late truth that is cheaper gives back to the lot whose money was spent', async () => {
  const world = await createWorld()
  const { lotId: first } = await grantLot(world, 1_000_000n, { currency: 'USD', priority: 1 })
  const { lotId: second } = await grantLot(world, 1_000_000_000n, { currency: 'USD', priority: 2 })
  const lost = await loseAttempt(world, 500_000_000n)
  const before = await freeOf(world, first, second)
  expect(await correct(world.db, lost.pocket, lost.truth(lost.charged - 40n))).toBe('corrected')
  expect(before).toEqual([1_000_000n - lost.charged, 1_000_000_000n])
  expect(await freeOf(world, first, second)).toEqual([1_000_000n - lost.charged + 40n, 1_000_000_000n])
  await expectLotsTrue(world)
})

test('late truth that is dearer takes from the lots in order, one movement each, and owes the rest', async () => {
  const world = await createWorld()
  const lost = await loseAttempt(world, 500_000_000n)
  const rest = await world.db.selectFrom('lot').select('free').executeTakeFirstOrThrow()
  const envelopeId = await fund(world, funding(rest.free, { currency: 'USD' }))
  const { lotId: first } = await grantLot(world, 10n, { currency: 'USD', priority: 1 })
  const { lotId: second } = await grantLot(world, 10n, { currency: 'USD' })
  const truth = lost.truth(lost.charged + 25n)
  expect(await correct(world.db, lost.pocket, truth)).toBe('corrected')
  expect(await correct(world.db, lost.pocket, truth)).toBe('replayed')
  expect(await freeOf(world, first, second)).toEqual([0n, 0n])
  const moved = await world.db
    .selectFrom('transfer')
    .select(['code', 'amount', 'lot_id'])
    .where('code', 'in', ['top_up', 'correction'])
    .orderBy('seq')
    .execute()
  expect(moved.slice(-4)).toEqual([
    { code: 'top_up', amount: 10n, lot_id: first },
    { code: 'top_up', amount: 10n, lot_id: second },
    { code: 'correction', amount: 20n, lot_id: null },
    { code: 'correction', amount: 5n, lot_id: null },
  ])
  await close(world, envelopeId)
  await expectLotsTrue(world)
})

test('money that went out before there were lots comes home to the opening lot', async () => {
  const world = await createWorld()
  const { lotId } = await grantLot(world, 10n)
  const envelopeId = await fund(world, funding(8n))
  // What the migration to lots finds: movements without a lot, and what lay in the wallet then.
  await asAdmin(
    world,
    `set session_replication_role = replica;
     update transfer set lot_id = null where lot_id = '${lotId}';
     update lot set source = 'opening', opening = free where id = '${lotId}'`,
  )
  await spend(world, envelopeId, 3n)
  await close(world, envelopeId)
  expect(await freeOf(world, lotId)).toEqual([7n])
  await expectLotsTrue(world)
})

/** A run on credit whose only attempt was lost, whose envelope is closed, and whose late owner has said what it knows. */
async function loseAttempt(world: World, credit: bigint) {
  const engine = await world.startEngine()
  const other = await world.startEngine()
  const run = await world.openRun({ credit })
  await world.sandbox.control('PUT', '/faults/sandbox-economy', { hang: true })
  const controller = new AbortController()
  const request = run.request('one', QUESTION, { model: 'research', signal: controller.signal })
  const call = executeCall(engine, request).catch(() => {})
  await pollUntil(async () => (await requestsSeen(world.sandbox)).length === 1, { what: 'the request' })
  const [attempt] = await openAttempts(world.db, world.scope, run.runId)
  if (!attempt) throw new Error('no attempt is open')
  await engine.instance.stop()
  expect(await takeOver(other, world.scope, attempt)).toBe('settled')
  await close(world, run.envelopeId)
  controller.abort()
  await call
  const { rows } = await sql<{ charged: bigint }>`
    select sum(case when c.kind = 'provider_cost' then t.amount else -t.amount end)::bigint as charged
    from transfer t join account c on c.id = t.credit_account
    where t.call_id = ${attempt.callId} and t.code in ('capture', 'correction')`.execute(world.db)
  const pocket = { projectId: world.scope.projectId, accountId: attempt.accountId }
  return { pocket, charged: rows[0]?.charged ?? 0n, truth: (amount: bigint) => truthOf(attempt, amount) }
}
