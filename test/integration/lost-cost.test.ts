import { executeCall } from '#calls/execute.ts'
import { lostCostOf } from '#calls/lost-cost.ts'
import { expect, test } from 'vitest'
import { QUESTION } from '../support/open-attempt.ts'
import { createWorld } from '../support/world.ts'

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
