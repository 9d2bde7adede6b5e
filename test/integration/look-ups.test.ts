import { executeCall } from '#calls/execute.ts'
import { lookUpAttempts } from '#calls/look-up.ts'
import { expect, test } from 'vitest'
import { attemptsOf, createFaultWorld } from '../support/fault-world.ts'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'

test('an answer without usage is estimated until its provider is asked, and is as useful then', async () => {
  const world = await createFaultWorld({
    kind: 'openrouter',
    models: [{ name: 'silent', routes: [{ model: 'silent', words: 'no-usage' }] }],
  })
  await world.sandbox.control('PUT', '/generations', { delayMs: 3_600_000 })
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const before = await executeCall(engine, run.request('a', QUESTION, { model: 'silent' }))
  expect(await attemptsOf(world, run)).toMatchObject([{ certainty: 'estimated', use: 'useful' }])
  await world.sandbox.control('PUT', '/generations', { delayMs: 0 })
  // Many processes ask at once.
  await Promise.all([lookUpAttempts(engine), lookUpAttempts(engine), lookUpAttempts(engine)])
  const [attempt] = await attemptsOf(world, run)
  expect(attempt).toMatchObject({ certainty: 'billed', use: 'useful', charged: attempt?.billed })
  expect(attempt?.charged).toBeGreaterThan(0n)
  const rows = await world.db.selectFrom('attempt').select('detail').execute()
  expect(rows).toMatchObject([{ detail: { lookedUp: 'found' } }])
  expect(await executeCall(engine, run.request('a', QUESTION, { model: 'silent' }))).toEqual(before)
  await expectVerified(world)
})
