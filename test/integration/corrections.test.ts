import { reconcile, voidLost } from '#calls/reconcile.ts'
import { correct, type Correction } from '#db/correction.ts'
import { newId } from '#db/ids.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { everything } from '../support/bad-input.ts'
import { createLedgerWorld, settlement, type LedgerWorld } from '../support/envelopes.ts'
import { debtOf, tell, truthOf } from '../support/late-truth.ts'
import { expectVerified } from '../support/open-attempt.ts'

test('a correction is a replay only if all that it says is the same', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const [silent, answered] = [await world.hold(root, 40n), await world.hold(root, 40n)]
  for (const item of [silent, answered]) await world.settle(root, item, 40n)
  const answer = { answerId: newId(Date.now()), answer: { text: 'late', finishReason: 'stop' } }
  const told = {
    silent: { ...truthOf(silent, 20n), tokens: 7n, usage: { input: 4, output: 3 }, detail: { lateOutcome: 'aborted' } },
    answered: { ...truthOf(answered, 50n), ...answer },
  }
  const say = (truth: Correction) => correct(world.db, root.pocket, truth)
  for (const truth of Object.values(told)) expect(await say(truth)).toBe('corrected')
  const before = await everything(world)
  for (const truth of Object.values(told)) expect(await say(truth)).toBe('replayed')
  const others: readonly Correction[] = [
    { ...told.silent, amount: 21n },
    { ...told.silent, certainty: 'unknown' },
    { ...told.silent, tokens: 8n },
    { ...told.silent, usage: { input: 5, output: 3 } },
    { ...told.silent, usage: null },
    { ...told.silent, detail: { lateOutcome: 'cut_stream' } },
    { ...told.silent, ...answer, answerId: newId(Date.now()) },
    { ...told.silent, holdId: answered.holdId },
    { ...told.answered, answerId: null, answer: null },
    { ...told.answered, answer: { text: 'poison', finishReason: 'stop' } },
    { ...truthOf(silent, 20n), correctionId: silent.holdId },
    { ...truthOf(silent, 20n), debtId: told.answered.correctionId },
  ]
  for (const truth of others) expect({ truth, verdict: await say(truth) }).toEqual({ truth, verdict: 'mismatch' })
  expect(await everything(world)).toEqual(before)
  expect(await tell(world, root, silent, 10n)).toBe('corrected')
  expect(await say(told.silent)).toBe('replayed')
  expect(await say({ ...told.silent, certainty: 'billed' })).toBe('mismatch')
  await expectVerified(world)
})

test('a correction of what had answered its call brings no answer, and may be told again', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const item = await world.hold(root, 40n)
  const answer = { answerId: newId(Date.now()), answer: { text: 'in time', finishReason: 'stop' } }
  expect(await world.queue.settle(root.pocket, { ...settlement(item, 40n), ...answer })).toMatchObject({
    verdict: 'settled',
  })
  const [first, second] = [truthOf(item, 30n), truthOf(item, 50n)]
  const say = (truth: Correction) => correct(world.db, root.pocket, truth)
  expect([await say(first), await say(first), await say(second)]).toEqual(['corrected', 'replayed', 'corrected'])
  expect([await say(first), await say(second)]).toEqual(['replayed', 'replayed'])
  const other = { answerId: newId(Date.now()), answer: { text: 'another', finishReason: 'stop' } }
  expect(await say({ ...second, ...other })).toBe('mismatch')
  await expectVerified(world)
})

test('what is estimated of a lost attempt after it was voided by hand is voided again, as often as it takes', async () => {
  const world = await createLedgerWorld()
  const root = await world.openRoot(100n)
  const item = await world.hold(root, 60n)
  await endLeases(world)
  await reconcile(world.db, { organisationId: await organisationOf(world), policy: 'maximum', by: 'a test' })
  const request = { callId: item.callId, number: 1, by: 'key 7', reason: 'no such request there' }
  const voidAgain = () => voidLost(world.db, world.scope, request)
  expect([await voidAgain(), await voidAgain()]).toEqual(['voided', 'replayed'])
  const estimate = truthOf(item, 130n)
  for (const truth of [estimate, truthOf(item, 30n)]) {
    expect(await correct(world.db, root.pocket, truth)).toBe('corrected')
    const verdicts = await Promise.all(Array.from({ length: 4 }, voidAgain))
    expect(verdicts.toSorted()).toEqual(['replayed', 'replayed', 'replayed', 'voided'])
    expect([await world.balance(root), await debtOf(world, 'USD')]).toEqual([[100n, 0n], 0n])
  }
  expect(await correct(world.db, root.pocket, estimate)).toBe('replayed')
  expect(await world.balance(root)).toEqual([100n, 0n])
  await expectVerified(world)
})

async function endLeases({ db }: LedgerWorld): Promise<void> {
  await sql`update instance set lease_until = clock_timestamp() - interval '1 hour'`.execute(db)
}

async function organisationOf({ db }: LedgerWorld): Promise<string> {
  const { id } = await db.selectFrom('organisation').select('id').executeTakeFirstOrThrow()
  return id
}
