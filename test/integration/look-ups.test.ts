import { executeCall } from '#calls/execute.ts'
import { lookUpAttempts } from '#calls/look-up.ts'
import { expect, test } from 'vitest'
import { attemptsOf, createFaultWorld, inTurn } from '../support/fault-world.ts'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'

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

test('requests that a provider does not know keep nobody else from being asked about', async () => {
  const unknown = Array.from({ length: 60 }, (_, index) => `unknown-${index}`)
  const world = await createFaultWorld({
    kind: 'openrouter',
    models: [
      ...unknown.map((name) => ({ name, routes: [{ model: name, words: '502' }] })),
      { name: 'known', routes: [{ model: 'known', words: 'cut-2' }] },
    ],
  })
  const engine = await world.startEngine()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const fail = async (model: string) =>
    void (await executeCall(engine, run.request(model, QUESTION, { model, mayRepeat: 0 })))
  await inTurn(unknown, 8, fail)
  await fail('known')
  const known = await pollUntil(
    async () => {
      await lookUpAttempts(engine)
      return (await attemptsOf(world, run)).find(({ path, certainty }) => path === 'known' && certainty === 'billed')
    },
    { what: 'the truth about the request that is known' },
  )
  expect(known.charged).toBe(known.billed)
})
